"""Where in the whole model the numbers lie that a rank holds.

A weight may be cut twice: by tensor parallelism or the deal of experts along one dimension, and then by FSDP along the
first. What a rank has of it is one box of the whole weight, or some, where two halves lie fused in it.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

__all__ = ["Box", "Cut", "Part", "cut_of", "keep", "part_of"]

Box = tuple[slice, ...]
"""A range in each dimension."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """Share number `rank` of `ranks` along a dimension, of each of the `halves` that lie fused in it."""

    dim: int
    halves: int
    rank: int
    ranks: int

    def apply(self, weight: Tensor) -> Tensor:
        """Keep this share of a whole weight."""
        shares = weight.unflatten(self.dim, (self.halves, self.ranks, -1))
        return shares.select(self.dim + 1, self.rank).flatten(self.dim, self.dim + 1)

    def join(self, shares: Sequence[Tensor]) -> Tensor:
        """Make the whole weight of the shares of all ranks."""
        parts = torch.stack([share.unflatten(self.dim, (self.halves, -1)) for share in shares], self.dim + 1)
        return parts.flatten(self.dim, self.dim + 2)

    def spans(self, size: int) -> list[tuple[int, int, int]]:
        """Ranges of a share of `size`, and where each begins in the whole: (first, last, first in the whole)."""
        step = size // self.halves
        return [(half * step, (half + 1) * step, (half * self.ranks + self.rank) * step) for half in range(self.halves)]


@dataclasses.dataclass(frozen=True)
class Part:
    """What a rank holds of one tensor: boxes of what it has, and of the whole, in pairs."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    boxes: tuple[tuple[Box, Box], ...]


def keep(module: nn.Module, name: str, cut: Cut) -> None:
    """Keep a share of one of a module's weights, and remember which."""
    weight = getattr(module, name)
    setattr(module, name, nn.Parameter(cut.apply(weight.detach()).clone()))
    _cuts(module)[name] = cut


def cut_of(module: nn.Module, name: str) -> Cut:
    """How a weight, by its name in the module, was cut before FSDP."""
    path, _, last = name.rpartition(".")
    return _cuts(module.get_submodule(path)).get(last, Cut(0, 1, 0, 1))


def _cuts(module: nn.Module) -> dict[str, Cut]:
    """What was cut of a module; FSDP changes its class and its weights, and leaves this."""
    return module.__dict__.setdefault("cuts", {})


def part_of(weight: Tensor, cut: Cut) -> Part:
    """Which part of the whole the local numbers of a weight are."""
    mine, offset = tuple(weight.shape), (0,) * weight.ndim
    if isinstance(weight, DTensor):
        mine, offset = compute_local_shape_and_global_offset(weight.shape, weight.device_mesh, weight.placements)
    shape = [*weight.shape]
    shape[cut.dim] *= cut.ranks
    pairs = (_pair(span, cut.dim, mine, offset) for span in cut.spans(weight.shape[cut.dim]))
    return Part(tuple(shape), tuple(pair for pair in pairs if _size(pair[0])))


def _pair(span: tuple[int, int, int], dim: int, mine: Sequence[int], offset: Sequence[int]) -> tuple[Box, Box]:
    """The numbers of one span that a rank has: where they lie in its own tensor, and where in the whole."""
    here = [slice(0, size) for size in mine]
    there = [slice(start, start + size) for start, size in zip(offset, mine, strict=True)]
    first, last = max(span[0], offset[dim]), min(span[1], offset[dim] + mine[dim])
    last = max(first, last)
    here[dim] = slice(first - offset[dim], last - offset[dim])
    there[dim] = slice(span[2] + first - span[0], span[2] + last - span[0])
    return tuple(here), tuple(there)


def _size(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)
