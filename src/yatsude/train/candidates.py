"""A sampled softmax: each step holds its targets against some thousands of tokens instead of the whole vocabulary.

A small model spends half of its arithmetic on the scores of tokens that hardly ever come. Tokens are drawn by their
frequency in the text, and a drawn token's score is raised by -log of the chance with which it is among the candidates,
so that the sum over the candidates stands for the sum over all (Bengio and Senécal 2008; Jean et al. 2015,
arXiv 1412.2007). Frequent tokens are always there, and nothing of them is estimated.

Shapes: V vocabulary, C candidates.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yatsude.model.loss import IGNORED
from yatsude.shards import Shards

__all__ = ["Candidates", "Drawn"]

HALVINGS = 60
MULTIPLE = 512
"""Candidates are filled up to a multiple of this: a product of another size every step costs time to set up."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The candidates of one step, the offsets of their scores, and each token's place among them (-1: none).

    The last ones may be filling: any token, with an offset of -inf.
    """

    tokens_C: Tensor
    offsets_C: Tensor
    places_V: Tensor

    def places(self, targets: Tensor) -> Tensor:
        """Targets as places among the candidates, any shape; ignored ones stay."""
        return torch.where(targets == IGNORED, IGNORED, self.places_V[targets.clamp_min(0)])


class Candidates:
    """Draws about `size` tokens of a vocabulary a step, the step's own targets among them."""

    def __init__(self, shards: Shards, size: int, seed: int) -> None:
        counts_V = np.ones(shards.vocab_size)  # one more than there are: what never came may be asked for
        for tokens in shards.streams():
            counts_V += np.bincount(tokens, minlength=shards.vocab_size)
        self.seed = seed
        self.frequency_V = counts_V / counts_V.sum()
        self.chance_V = _chances(self.frequency_V, size)

    def draw(self, step: int, targets: npt.NDArray[np.int64]) -> Drawn:
        """Candidates of step number `step`, whose targets are of any shape; the same arguments give the same ones."""
        wanted = targets[targets != IGNORED]
        chosen_V = np.random.default_rng((self.seed, step)).random(len(self.chance_V)) < self.chance_V
        chosen_V[wanted] = True
        (tokens_C,) = np.nonzero(chosen_V)
        # a token is missing if it was not drawn and is no target either, the targets taken as as many draws of the text
        missing_C = (1 - self.chance_V[tokens_C]) * (1 - self.frequency_V[tokens_C]) ** len(wanted)
        places_V = np.full(len(chosen_V), -1)
        places_V[tokens_C] = np.arange(len(tokens_C))
        filling = (0, -len(tokens_C) % MULTIPLE)
        offsets_C = -np.log1p(-missing_C).astype(np.float32)
        return Drawn(
            torch.from_numpy(np.pad(tokens_C, filling)),
            torch.from_numpy(np.pad(offsets_C, filling, constant_values=-np.inf)),
            torch.from_numpy(places_V),
        )


def _chances(frequency_V: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Chance of each token to be drawn: in proportion to its frequency, at most 1, `size` of them on average."""
    low, high = 0.0, size / frequency_V.min()
    for _ in range(HALVINGS):
        factor = (low + high) / 2
        low, high = (factor, high) if np.minimum(1, factor * frequency_V).sum() < size else (low, factor)
    return np.minimum(1, high * frequency_V)
