"""What takes the place of whatever depends on numbers, where tensors have shapes alone.

Experts get equally many rows, rows hold one document each, and attention is what a GPU's fused kernels keep of it. The
same objects take part in a run on real numbers too, so that both can be held against each other.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from yatsude.model.attention import Mask, dense
from yatsude.model.dispatch import LocalDispatcher, LocalRoute
from yatsude.model.documents import Documents
from yatsude.parallel.expert import AllToAll, FarRoute
from yatsude.parallel.float8 import rows

__all__ = ["EvenLocal", "EvenRows", "Undivided", "fused", "narrow"]


class EvenLocal(LocalDispatcher):
    """All experts live here, and get equally many rows."""

    def dispatch(self, x_ND: Tensor, weights_NK: Tensor, chosen_NK: Tensor, experts: int) -> tuple[Tensor, LocalRoute]:
        """Rows by turns to all experts."""
        return super().dispatch(x_ND, weights_NK, _by_turns(chosen_NK, experts), experts)

    def rows(self, chosen: Tensor, filled_E: Tensor, multiple: int) -> int:
        """How many rows there are: no tensor has to be asked."""
        each = len(chosen) // len(filled_E)
        return len(filled_E) * (-(-each // multiple) * multiple)


class EvenRows(AllToAll):
    """Rows travel, equally many between any two ranks; `imbalance` times as many come here."""

    def __init__(self, mesh: DeviceMesh, imbalance: float = 1.0) -> None:
        super().__init__(mesh)
        self.imbalance = imbalance

    def dispatch(self, x_ND: Tensor, weights_NK: Tensor, chosen_NK: Tensor, experts: int) -> tuple[Tensor, FarRoute]:
        """Rows by turns to all experts, and with them to all ranks."""
        self._each = chosen_NK.numel() // self.mesh.size()
        return super().dispatch(x_ND, weights_NK, _by_turns(chosen_NK, experts), experts)

    def sizes(self, mine_PL: Tensor, theirs_PL: Tensor) -> tuple[list[int], list[int]]:
        """What is given and taken: no tensor has to be asked."""
        ranks = self.mesh.size()
        return [self._each] * ranks, [round(self._each * self.imbalance)] * ranks


class Undivided(Documents):
    """Rows of one document each."""

    @functools.cached_property
    def _ends(self) -> list[tuple[int, int]]:
        return [(0, place) for place in range(len(self.places_T))]


def fused(count: Callable[[int], None]) -> Callable[..., Tensor]:
    """What a GPU's fused kernel keeps for its backward pass, in the place of `model.attention.attend`.

    `count` is told its FLOPs, those of causal attention: a query looks at itself and all before it.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float) -> Tensor:
        seen = None if mask is None else dense(mask, query.shape[2], key.shape[2], query)
        return _Fused.apply(query, key, value, seen, count)

    return attend


class _Fused(torch.autograd.Function):
    """Forward two products, backward five: scores are made again."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, count: Callable[[int], None]
    ) -> Tensor:
        out = query.new_empty(*query.shape[:3], value.shape[3])
        sums = torch.empty(query.shape[:3], dtype=torch.float32)
        pairs = query.shape[0] * query.shape[1] * query.shape[2] * (key.shape[2] + 1) // 2
        ctx.count, ctx.flops = count, (2 * pairs * query.shape[3], 2 * pairs * value.shape[3])
        ctx.save_for_backward(query, key, value, out, sums, mask)
        count(sum(ctx.flops))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_ = ctx.saved_tensors
        by_query, by_value = ctx.flops
        ctx.count(3 * by_query + 2 * by_value)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None, None


def narrow(count: Callable[[int], None]) -> Callable[..., Tensor]:
    """What a GPU's grouped product of eight-bit numbers takes, in the place of `float8.scaled_grouped`."""

    def product(x_RI: Tensor, weight_EOI: Tensor, counts_E: Tensor) -> Tensor:
        cast = rows(x_RI), rows(weight_EOI)
        count(2 * x_RI.numel() * weight_EOI.shape[1])
        out = x_RI.new_zeros(len(x_RI), weight_EOI.shape[1])
        del cast
        return out

    return product


def _by_turns(chosen_NK: Tensor, experts: int) -> Tensor:
    """Experts in turns: as many rows for each."""
    return torch.arange(chosen_NK.numel(), device=chosen_NK.device).remainder_(experts).view_as(chosen_NK)
