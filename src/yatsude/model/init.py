"""Starting weights."""

import hashlib

import torch
from torch import Tensor

from yatsude.model.transformer import Transformer
from yatsude.spec.config import ModelConfig
from yatsude.spec.stored import tensors

__all__ = ["Initial", "initialise", "writes"]

EXPERTS = 3
"""Dimensions of a weight that holds a matrix an expert."""


class Initial:
    """Starting weights of a model: each matrix is drawn by its name, so that parts of it are those of the whole.

    embed_tokens           normal, deviation `initializer_range`
    matrices that write    normal, deviation 1 / sqrt(inputs) / sqrt(2 · layers)  (o_proj, down_proj)
    other matrices         normal, deviation 1 / sqrt(inputs)
    lm_head                zero: the first prediction is uniform (tied: as embed_tokens)
    norms                  one
    biases                 zero
    """

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self._shapes = tensors(config)

    def read(self, name: str, box: tuple[slice, ...]) -> Tensor:
        """Numbers of a box of a weight, float32; no more than one matrix is drawn at a time."""
        shape = self._shapes[name]
        if len(shape) < EXPERTS:
            return self._matrix(name, name, shape)[box]
        experts = range(shape[0])[box[0]]
        return torch.stack([self._matrix(name, f"{name}.{expert}", shape[1:])[box[1:]] for expert in experts])

    def _matrix(self, name: str, place: str, shape: tuple[int, ...]) -> Tensor:
        if name.startswith("lm_head") or name.endswith(("bias", "e_score_correction_bias")):
            return torch.zeros(shape)
        if len(shape) == 1:
            return torch.ones(shape)
        return torch.empty(shape).normal_(std=self._deviation(name, shape), generator=self._generator(place))

    def _deviation(self, name: str, shape: tuple[int, ...]) -> float:
        if name.startswith("embed_tokens"):
            return self.config.initializer_range
        depth = (2 * self.config.num_hidden_layers) ** -0.5 if writes(name) else 1.0
        return shape[-1] ** -0.5 * depth

    def _generator(self, place: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}:{place}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8]))


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Fill every weight of a whole model, the same for the same seed."""
    initial = Initial(model.config, seed)
    for name, weight in model.named_parameters():
        weight.copy_(initial.read(name, tuple(slice(0, size) for size in weight.shape)))


def writes(name: str) -> bool:
    """Whether the matrix of this name writes to the residual stream."""
    return name.endswith(("o_proj.weight", "down_proj.weight", "down_proj"))
