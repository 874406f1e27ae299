"""How well a model predicts text: bits per character, each document by itself and with its end counted.

A document longer than the window is read in windows that overlap by half, so that every token of it but the first
few is predicted from at least half a window of its own text.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from yatsude.model.documents import Documents
from yatsude.model.loss import IGNORED, token_losses
from yatsude.model.transformer import Transformer

__all__ = ["Score", "nats_of", "score"]

ROWS = 8
Tokens = npt.NDArray[np.int64]
Spread = Callable[[Callable[[Any], tuple[float, int]], Iterable[Any]], Iterable[tuple[float, int]]]


class Texts(Protocol):
    """What can be scored: `Shards`, or a choice of their documents."""

    characters: npt.NDArray[np.int32]

    def documents(self) -> Iterable[Tokens]:
        """Each document as in `Shards`, and as many as there are `characters`."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Bits that a text costs under a model, and its length."""

    bits: float
    characters: int
    tokens: int

    @property
    def bits_per_character(self) -> float:
        """Bits per character; the end of each text is paid for but is no character."""
        return self.bits / max(self.characters, 1)


@torch.no_grad()
def score(model: Transformer, shards: Texts, window: int, documents: int | None = None, spread: Spread = map) -> Score:
    """Score the first `documents` documents (none: all) of `shards`, reading at most `window` tokens at a time.

    `spread` applies a function to all batches, as `map` does: give it threads, and they share the work.
    """
    pieces = itertools.chain.from_iterable(_pieces(d, window) for d in itertools.islice(shards.documents(), documents))
    found = list(spread(lambda rows: nats_of(model, *rows), _batches(pieces, window)))
    nats, tokens = math.fsum(nats for nats, _ in found), sum(tokens for _, tokens in found)
    return Score(nats / math.log(2), int(shards.characters[:documents].sum()), tokens)


@torch.no_grad()
def nats_of(model: Transformer, inputs: Tokens, targets: Tokens, documents: Tokens) -> tuple[float, int]:
    """Cross-entropy in nats of all counted targets of packed rows, each (B, T), and how many they are."""
    mask = Documents(torch.from_numpy(documents))
    hidden = model(torch.from_numpy(inputs), mask=mask).flatten(0, 1)
    losses = token_losses(hidden, model.lm_head.weight, torch.from_numpy(targets).flatten())
    return float(losses.double().sum()), int((targets != IGNORED).sum())


def _pieces(document: Tokens, window: int) -> Iterator[tuple[Tokens, Tokens]]:
    """Inputs and targets of a document's windows; targets that an earlier window predicted are ignored."""
    inputs, targets = document[:-1], document[1:]
    step = window // 2
    for start in range(0, max(len(inputs) - step, 1), step):
        part = targets[start : start + window].copy()
        if start:
            part[: window - step] = IGNORED
        yield inputs[start : start + window], part


def _batches(pieces: Iterable[tuple[Tokens, Tokens]], window: int) -> Iterator[tuple[Tokens, Tokens, Tokens]]:
    """Lay pieces one after the other into rows of `window` tokens: inputs, targets and piece numbers, each (B, T)."""
    rows: list[tuple[Tokens, Tokens, Tokens]] = []
    fill = window
    for inputs, targets in pieces:
        if fill + len(inputs) > window:
            if len(rows) == ROWS:
                yield _stacked(rows)
                rows = []
            rows.append((np.zeros(window, np.int64), np.full(window, IGNORED), np.zeros(window, np.int64)))
            fill = 0
        place = slice(fill, fill + len(inputs))
        rows[-1][0][place], rows[-1][1][place] = inputs, targets
        rows[-1][2][fill:] += 1
        fill += len(inputs)
    if rows:
        yield _stacked(rows)


def _stacked(rows: list[tuple[Tokens, Tokens, Tokens]]) -> tuple[Tokens, Tokens, Tokens]:
    inputs, targets, numbers = zip(*rows, strict=True)
    return np.stack(inputs), np.stack(targets), np.stack(numbers)
