"""Weights in flat buffers: float32 masters, a copy in the precision of the products, one gradient a worker.

Parameters of equal shape lie side by side, so a whole stack of matrices is one view and an optimizer works on a few
long slices. The workers' models are views of the same copy: an update is published to all of them by one cast.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from yatsude.model.native import library
from yatsude.model.transformer import Transformer

__all__ = ["Slice", "Weights", "collect_into", "kind_of"]

ALIGNMENT = 32
"""Elements: every slice begins at a multiple of 64 bytes, in 16 bits too."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """Parameters of one kind and shape, next to each other: `names` in order, from `start` to `stop` of the buffers."""

    kind: str
    shape: torch.Size
    names: tuple[str, ...]
    start: int
    stop: int

    def of(self, flat: Tensor) -> Tensor:
        """View of a flat buffer, shape (number of names, *shape)."""
        return self.flat(flat).view(len(self.names), *self.shape)

    def flat(self, flat: Tensor) -> Tensor:
        """The same as one long row."""
        return flat[self.start : self.stop]

    def cut(self, parts: int) -> "list[Slice]":
        """Cut into at most `parts` slices of whole parameters."""
        size = math.prod(self.shape)
        bounds = [len(self.names) * i // parts for i in range(parts + 1)]
        return [
            Slice(self.kind, self.shape, self.names[a:b], self.start + a * size, self.start + b * size)
            for a, b in itertools.pairwise(bounds)
            if a < b
        ]


class Weights:
    """Flat buffers of a model's parameters, and a replica of the model for each worker."""

    def __init__(self, model: Transformer, dtype: torch.dtype, workers: int) -> None:
        parameters = dict(model.named_parameters())
        self.slices = _slices(parameters)
        self.shares = _shares(self.slices, workers)
        """The slices, cut into pieces of about equal work, a list for each worker."""
        total = self.slices[-1].stop
        self.master = torch.zeros(total)
        for part in self.slices:
            for view, name in zip(part.of(self.master), part.names, strict=True):
                view.copy_(parameters[name].detach())
        self.compute = self.master if dtype == torch.float32 else self.master.to(dtype)
        biases = [router.e_score_correction_bias for router in model.routers]
        self._biases = [None if bias is None else bias.clone() for bias in biases]
        self._gradients = torch.zeros(workers, math.ceil(total / ALIGNMENT) * ALIGNMENT, dtype=dtype)
        self.gradient = torch.zeros(total)
        self.replicas = [self._bind(copy.deepcopy(model), gradient) for gradient in self._gradients]

    def collect(self, pieces: Sequence[Slice]) -> float:
        """Add up the workers' gradients of some pieces, in their order, into the float32 `gradient`, and clear them.

        The sum of the squares of what was collected comes back.
        """
        return sum(
            collect_into(piece.flat(self.gradient), self._gradients[:, piece.start : piece.stop]) for piece in pieces
        )

    def publish(self, pieces: Sequence[Slice]) -> None:
        """Make the masters' values of some pieces those that the replicas compute with."""
        if self.compute is not self.master:
            for piece in pieces:
                piece.flat(self.compute).copy_(piece.flat(self.master))

    def full(self) -> Transformer:
        """Copy the model at the masters' full precision, without gradients."""
        model = copy.deepcopy(self.replicas[0]).float()
        values = self.named(self.master)
        for name, parameter in model.named_parameters():
            parameter.data, parameter.grad = values[name].clone(), None
        return model

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a flat buffer by parameter name."""
        return {name: view for part in self.slices for name, view in zip(part.names, part.of(flat), strict=True)}

    def _bind(self, model: Transformer, gradient: Tensor) -> Transformer:
        """Let the parameters of `model` be views of the compute copy, and their gradients of `gradient`."""
        values, gradients = self.named(self.compute), self.named(gradient)
        for name, parameter in model.named_parameters():
            parameter.data = values[name]
            parameter.grad = gradients[name]
        for router, shared in zip(model.routers, self._biases, strict=True):
            router.e_score_correction_bias = shared
        return model


def collect_into(total: Tensor, gradients: Tensor) -> float:
    """Write the sum of the rows of `gradients` to `total`, float32, and clear them; the sum of squares comes back."""
    if library.usable(gradients):
        return library.call("collect", gradients, total, *gradients.shape, gradients.stride(0))
    total.copy_(gradients[0])
    for other in gradients[1:]:
        total.add_(other)
    gradients.zero_()
    return float(torch.linalg.vector_norm(total)) ** 2


def _slices(parameters: dict[str, torch.nn.Parameter]) -> list[Slice]:
    groups: dict[tuple[str, torch.Size], list[str]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((kind_of(name, parameter), parameter.shape), []).append(name)
    slices, start = [], 0
    for (kind, shape), names in groups.items():
        stop = start + len(names) * math.prod(shape)
        slices.append(Slice(kind, shape, tuple(names), start, stop))
        start = math.ceil(stop / ALIGNMENT) * ALIGNMENT
    return slices


def _shares(slices: Sequence[Slice], workers: int) -> list[list[Slice]]:
    """Deal pieces out, the largest first, each to the worker with the least so far."""
    shares: list[list[Slice]] = [[] for _ in range(workers)]
    pieces = [piece for part in slices for piece in part.cut(workers)]
    for piece in sorted(pieces, key=lambda piece: piece.start - piece.stop):
        min(shares, key=lambda share: sum(p.stop - p.start for p in share)).append(piece)
    return shares


def kind_of(name: str, parameter: Tensor) -> str:
    """What an optimizer must know of a parameter: vector, embedding (or head), router, matrix."""
    if parameter.ndim == 1:
        return "vector"
    if name.startswith(("embed_tokens", "lm_head")):
        return "embedding"
    return "router" if name.endswith("gate.weight") else "matrix"
