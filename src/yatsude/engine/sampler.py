"""From scores to tokens: penalties, temperature, top-k, top-p, and one uniform number per draw.

Each answer has its own stream of random numbers, so that what else is in the batch does not change it.
Shapes: B rows, V vocabulary.
"""

import dataclasses
import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from yatsude.engine.settings import SamplingSettings

__all__ = ["Drawer", "Scored", "probabilities", "sample"]

FIRST_LOOK = 1024
"""Likeliest tokens looked at before all are sorted: mostly enough."""


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
    if all(drawer.settings.greedy for drawer in drawers):
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
    cumulative_BV = probabilities(logits_BV, [drawer.settings for drawer in drawers]).cumsum(-1, dtype=torch.float64)
    uniform_B1 = torch.tensor([[drawer.uniform()] for drawer in drawers], dtype=torch.float64, device=logits_BV.device)
    drawn_B1 = torch.searchsorted(cumulative_BV, uniform_B1 * cumulative_BV[:, -1:], right=True)
    return drawn_B1[:, 0].tolist()


def probabilities(logits_BV: Tensor, settings: Sequence[SamplingSettings]) -> Tensor:
    """Probabilities (B, V) up to a factor a row, 0 for what may not be drawn; equals are kept or cut together."""
    greedy_B = torch.tensor([one.greedy for one in settings], device=logits_BV.device)
    temperature_B1 = logits_BV.new_tensor([1.0 if one.greedy else one.temperature for one in settings])[:, None]
    kept_BV = torch.softmax(logits_BV / temperature_B1, -1)
    if any(one.cuts for one in settings):
        kept_BV.masked_fill_(kept_BV < _least_kept(kept_BV, settings), 0.0)
    if any(one.greedy for one in settings):
        kept_BV[greedy_B] = functional.one_hot(logits_BV[greedy_B].argmax(-1), kept_BV.shape[1]).to(kept_BV.dtype)
    return kept_BV


def _least_kept(probabilities_BV: Tensor, settings: Sequence[SamplingSettings]) -> Tensor:
    """Probability of the last token that top-k and top-p let in, (B, 1); top-p is a share of what top-k left."""
    device, vocabulary = probabilities_BV.device, probabilities_BV.shape[1]
    cuts_B1 = torch.tensor([one.cuts for one in settings], device=device)[:, None]
    top_k_B1 = torch.tensor([one.top_k or vocabulary for one in settings], device=device)[:, None]
    top_p_B1 = torch.tensor([one.top_p if one.top_p < 1 else 2.0 for one in settings], device=device)[:, None]
    falling_BK = torch.topk(probabilities_BV, min(FIRST_LOOK, vocabulary), -1).values
    seen_B1 = (top_k_B1 <= falling_BK.shape[1]) | (falling_BK.sum(-1, keepdim=True) > top_p_B1) | ~cuts_B1
    if not bool(seen_B1.all()):
        falling_BK = _falling(probabilities_BV)
    in_k_BK = torch.arange(falling_BK.shape[1], device=device) < top_k_B1
    falling_BK = falling_BK.masked_fill(~in_k_BK, 0.0)
    cumulative_BK = falling_BK.cumsum(-1, dtype=torch.float64)
    above_BK = cumulative_BK - falling_BK
    out_BK = ~in_k_BK | (above_BK >= top_p_B1 * cumulative_BK[:, -1:])
    out_BK[:, 0] = False  # however small top-p is
    return falling_BK.masked_fill(out_BK, torch.inf).amin(-1, keepdim=True) * cuts_B1


def _falling(x: Tensor) -> Tensor:
    """Each row, largest first; without the indices that torch.sort makes, NumPy is many times faster on a CPU."""
    if x.device.type == "cpu":
        return torch.from_numpy(np.sort(x.numpy(), -1)).flip(-1)
    return x.sort(-1, descending=True).values


def _scored(logits_V: Tensor, token: int, likeliest: int) -> Scored:
    logprobs_V = torch.log_softmax(logits_V, -1)
    values, tokens = torch.topk(logprobs_V, min(likeliest, len(logits_V)))
    return Scored(token, float(logprobs_V[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))
