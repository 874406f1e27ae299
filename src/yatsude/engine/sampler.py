"""From scores to tokens: penalties, temperature, top-k, top-p, and one uniform number per draw.

Each answer has its own stream of random numbers, so that what else is in the batch does not change it.
Shapes: B rows, V vocabulary, K candidates.
"""

import dataclasses
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from yatsude.engine.settings import SamplingSettings

__all__ = ["Drawer", "Scored", "candidates", "sample"]

FIRST_LOOK = 256
"""Candidates looked at before all are sorted: mostly enough, and many times faster on a large vocabulary."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """A drawn token, its log-probability (nats, before temperature and bias), and the likeliest tokens with theirs."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


class Drawer:
    """The settings of one answer, its random numbers, and what it has said so far."""

    def __init__(self, settings: SamplingSettings) -> None:
        self.settings = settings
        self._random = random.Random(settings.seed)
        self._counts: dict[int, int] = {}
        self._penalises = bool(settings.presence_penalty or settings.frequency_penalty)

    @property
    def changes_scores(self) -> bool:
        """Whether `adjust` would do anything."""
        return bool(self.settings.logit_bias) or (self._penalises and bool(self._counts))

    def adjust(self, logits_V: Tensor) -> None:
        """Add the bias and take off the penalties, in place; a bias of -100 or less forbids its token."""
        for token, bias in self.settings.logit_bias:
            if token < len(logits_V):
                logits_V[token] += bias if bias > -100 else -torch.inf
        if self._penalises and self._counts:
            tokens = torch.tensor(list(self._counts), device=logits_V.device)
            times = torch.tensor(list(self._counts.values()), dtype=logits_V.dtype, device=logits_V.device)
            logits_V[tokens] -= self.settings.presence_penalty + self.settings.frequency_penalty * times

    def uniform(self) -> float:
        """Return the next random number in [0, 1)."""
        return self._random.random()

    def note(self, token: int) -> None:
        """Remember a token that was drawn, for the penalties."""
        if self._penalises:
            self._counts[token] = self._counts.get(token, 0) + 1


def sample(logits_BV: Tensor, drawers: Sequence[Drawer]) -> tuple[list[int], list[Scored | None]]:
    """Draw one token a row; rows that ask for log-probabilities get them beside it."""
    logits_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))
    raw_BV = logits_BV
    if any(drawer.changes_scores for drawer in drawers):
        logits_BV = logits_BV.clone()
        for logits_V, drawer in zip(logits_BV, drawers, strict=True):
            drawer.adjust(logits_V)
    if all(drawer.settings.temperature == 0 for drawer in drawers):
        tokens: list[int] = logits_BV.argmax(-1).tolist()
    else:
        tokens = _drawn(logits_BV, drawers)
    for drawer, token in zip(drawers, tokens, strict=True):
        drawer.note(token)
    return tokens, [
        None if drawer.settings.logprobs is None else _scored(raw_V, token, drawer.settings.logprobs)
        for raw_V, token, drawer in zip(raw_BV, tokens, drawers, strict=True)
    ]


def _drawn(logits_BV: Tensor, drawers: Sequence[Drawer]) -> list[int]:
    tokens: list[int] = logits_BV.argmax(-1).tolist()
    for cut in (False, True):  # apart: a row must meet its candidates in the same order whatever its neighbours
        rows = [n for n, d in enumerate(drawers) if d.settings.temperature > 0 and d.settings.cuts == cut]
        if rows:
            part_RV = logits_BV if len(rows) == len(drawers) else logits_BV[rows]
            for row, token in zip(rows, _drawn_alike(part_RV, [drawers[row] for row in rows]), strict=True):
                tokens[row] = token
    return tokens


def _drawn_alike(logits_BV: Tensor, drawers: Sequence[Drawer]) -> list[int]:
    probabilities_BK, tokens_BK = candidates(logits_BV, [drawer.settings for drawer in drawers])
    cumulative_BK = probabilities_BK.cumsum(-1, dtype=torch.float64)
    uniform_B1 = torch.tensor([[drawer.uniform()] for drawer in drawers], dtype=torch.float64, device=logits_BV.device)
    chosen_B1 = torch.searchsorted(cumulative_BK, uniform_B1 * cumulative_BK[:, -1:], right=True)
    return (chosen_B1 if tokens_BK is None else tokens_BK.gather(1, chosen_B1))[:, 0].tolist()


def candidates(logits_BV: Tensor, settings: Sequence[SamplingSettings]) -> tuple[Tensor, Tensor | None]:
    """Probabilities (B, K) up to a factor a row, 0 for what may not be drawn, and the token ids (B, K) they belong to.

    Without ids, K is the vocabulary in its own order. Likeliest first where top-k or top-p cut.
    Temperatures must be above 0.
    """
    temperature_B1 = logits_BV.new_tensor([one.temperature for one in settings])[:, None]
    probabilities_BV = torch.softmax(logits_BV / temperature_B1, -1)
    if not any(one.cuts for one in settings):
        return probabilities_BV, None
    top_k = [one.top_k or logits_BV.shape[1] for one in settings]
    top_p = [one.top_p for one in settings]
    top_k_B1 = torch.tensor(top_k, device=logits_BV.device)[:, None]
    top_p_B1 = probabilities_BV.new_tensor([2.0 if p == 1.0 else p for p in top_p])[:, None]
    look = min(FIRST_LOOK, logits_BV.shape[1])
    sorted_BK, tokens_BK = torch.topk(probabilities_BV, look, -1)
    enough_B1 = (top_k_B1 <= look) | (sorted_BK.sum(-1, keepdim=True) > top_p_B1)
    if not bool(enough_B1.all()):
        sorted_BK, tokens_BK = probabilities_BV.sort(-1, descending=True)
    rank_K = torch.arange(sorted_BK.shape[1], device=logits_BV.device)
    sorted_BK = sorted_BK.masked_fill(rank_K >= top_k_B1, 0.0)
    before_BK = sorted_BK.cumsum(-1) - sorted_BK
    mass_B1 = sorted_BK.sum(-1, keepdim=True)  # top-p is a share of what top-k left
    return sorted_BK.masked_fill(before_BK >= top_p_B1 * mass_B1, 0.0), tokens_BK


def _scored(logits_V: Tensor, token: int, likeliest: int) -> Scored:
    logprobs_V = torch.log_softmax(logits_V, -1)
    values, tokens = torch.topk(logprobs_V, min(likeliest, len(logits_V)))
    return Scored(token, float(logprobs_V[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))
