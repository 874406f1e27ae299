"""Weights in flat buffers: float32 masters, a copy in the precision of the products, one gradient a worker.

Parameters of equal shape lie side by side, so a whole stack of matrices is one view and an optimizer works on a few
long slices. The workers' models are views of the same copy: an update is published to all of them by one cast.
"""

import copy
import dataclasses
import math

import torch
from torch import Tensor

from yatsude.model.transformer import Transformer

__all__ = ["Slice", "Weights"]

ALIGNMENT = 32


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
        return flat[self.start : self.stop].view(len(self.names), *self.shape)


class Weights:
    """Flat buffers of a model's parameters, and a replica of the model for each worker."""

    def __init__(self, model: Transformer, dtype: torch.dtype, workers: int) -> None:
        parameters = dict(model.named_parameters())
        self.slices = _slices(parameters)
        total = self.slices[-1].stop
        self.master = torch.zeros(total)
        for part in self.slices:
            for view, name in zip(part.of(self.master), part.names, strict=True):
                view.copy_(parameters[name].detach())
        self.compute = self.master if dtype == torch.float32 else self.master.to(dtype)
        self._biases = [router.e_score_correction_bias.clone() for router in model.routers]
        self._gradients = [torch.zeros(total, dtype=dtype) for _ in range(workers)]
        self.gradient = torch.zeros(total)
        self.replicas = [self._bind(copy.deepcopy(model), gradient) for gradient in self._gradients]

    def collect(self) -> Tensor:
        """Add up the workers' gradients, in their order, into the float32 `gradient` and clear them."""
        self.gradient.copy_(self._gradients[0])
        for other in self._gradients[1:]:
            self.gradient.add_(other)
        for one in self._gradients:
            one.zero_()
        return self.gradient

    def publish(self) -> None:
        """Make the masters' values those that the replicas compute with."""
        if self.compute is not self.master:
            self.compute.copy_(self.master)

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


def _slices(parameters: dict[str, torch.nn.Parameter]) -> list[Slice]:
    groups: dict[tuple[str, torch.Size], list[str]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((_kind(name, parameter), parameter.shape), []).append(name)
    slices, start = [], 0
    for (kind, shape), names in groups.items():
        stop = start + len(names) * math.prod(shape)
        slices.append(Slice(kind, shape, tuple(names), start, stop))
        start = math.ceil(stop / ALIGNMENT) * ALIGNMENT
    return slices


def _kind(name: str, parameter: Tensor) -> str:
    if parameter.ndim == 1:
        return "vector"
    if name.startswith(("embed_tokens", "lm_head")):
        return "embedding"
    return "router" if name.endswith("gate.weight") else "matrix"
