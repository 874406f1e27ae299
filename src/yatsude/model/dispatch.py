"""Tokens to experts and back. Every mixture has a dispatcher: this one stays in the process.

Shapes: N tokens, K experts a token, R routed rows in the order of their experts (N·K, and some more where an expert's
are filled up), D hidden width, E experts.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from yatsude.model.native import library

__all__ = ["Dispatcher", "LocalDispatcher", "LocalRoute", "Route", "counted"]

MULTIPLE = 32
"""Each expert's rows are filled up to a multiple of this. A product of a size that has not been seen must be set up,
which costs more than a small product itself: with experts 128 wide, three times as much."""
FEWEST = 2 * MULTIPLE
"""Rows an expert, on average, from which on filling up pays; below, as in decoding, it would be most of the work."""


@dataclasses.dataclass(frozen=True)
class Route:
    """The way of rows to the experts and back."""

    counts_E: Tensor
    """Rows that each expert of this process receives."""


Way = TypeVar("Way", bound=Route)


class Dispatcher(Protocol[Way]):
    """Brings rows to the experts of this process and the answers back to their tokens.

    What is computed between `dispatch` and `receive` is computed while rows travel, and so is its gradient.
    """

    def dispatch(self, x_ND: Tensor, weights_NK: Tensor, chosen_NK: Tensor, experts: int) -> tuple[Tensor, Way]:
        """Send each token to the experts it has chosen; what is under way, and its route."""
        ...

    def receive(self, sent: Tensor, route: Way) -> Tensor:
        """Rows that have arrived, sorted by expert, shape (R, D)."""
        ...

    def combine(self, y_RD: Tensor, route: Way) -> Tensor:
        """Weighted sum of each token's rows, shape (N, D)."""
        ...


@dataclasses.dataclass(frozen=True)
class LocalRoute(Route):
    """Where each routed row came from.

    Rows that only fill up are copies of token 0 that nobody asks for: `row_NK` points to none of them.
    """

    token_R: Tensor
    row_NK: Tensor
    weights_NK: Tensor


class LocalDispatcher:
    """All experts live in this process: a stable sort, and rows filled up to a `multiple` an expert."""

    def __init__(self, multiple: int = MULTIPLE) -> None:
        self.multiple = multiple

    def dispatch(self, x_ND: Tensor, weights_NK: Tensor, chosen_NK: Tensor, experts: int) -> tuple[Tensor, LocalRoute]:
        """Rows sorted by expert, shape (R, D), and the way back."""
        flat = chosen_NK.flatten()
        counts_E = counted(flat, experts)
        multiple = self.multiple if len(flat) >= FEWEST * experts else 1
        filled_E = (counts_E + multiple - 1) // multiple * multiple
        gap_E = (filled_E - counts_E).cumsum(0) - (filled_E - counts_E)
        order = torch.argsort(flat, stable=True)
        row = torch.arange(len(flat), device=flat.device) + gap_E[flat[order]]
        rows = self.rows(flat, filled_E, multiple)
        route = LocalRoute(
            counts_E=filled_E,
            token_R=flat.new_zeros(rows).index_copy_(0, row, order // chosen_NK.shape[1]),
            row_NK=torch.empty_like(order).index_copy_(0, order, row).view_as(chosen_NK),
            weights_NK=weights_NK,
        )
        return _Gather.apply(x_ND, route), route

    def rows(self, chosen: Tensor, filled_E: Tensor, multiple: int) -> int:
        """How many rows there are; a GPU is asked only where some were filled up."""
        return len(chosen) if multiple == 1 else int(filled_E.sum())

    def receive(self, sent: Tensor, route: LocalRoute) -> Tensor:
        """Rows that were here already."""
        return sent

    def combine(self, y_RD: Tensor, route: LocalRoute) -> Tensor:
        """Weighted sum of each token's rows, shape (N, D)."""
        return _Combine.apply(y_RD, route.weights_NK, route)


def counted(chosen: Tensor, experts: int) -> Tensor:
    """How often each expert was chosen, shape (E,); a GPU need not tell the CPU, as bincount makes it."""
    return chosen.new_zeros(experts).scatter_add_(0, chosen, torch.ones_like(chosen))


class _Gather(torch.autograd.Function):
    """Copy each token to its K rows; backward adds K rows up, where autograd would scatter into zeros."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, route: LocalRoute) -> Tensor:
        ctx.route = route
        return x_ND.index_select(0, route.token_R)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _summed(grads[0], None, ctx.route), None


class _Combine(torch.autograd.Function):
    """Weighted sum of K rows a token, with gradients for rows and weights."""

    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, weights_NK: Tensor, route: LocalRoute) -> Tensor:
        ctx.save_for_backward(y_RD, weights_NK)
        ctx.route = route
        return _summed(y_RD, weights_NK, route)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        y_RD, weights_NK = ctx.saved_tensors
        route: LocalRoute = ctx.route
        if weights_NK.dtype == torch.float32 and library.usable(y_RD):
            return *_split_compiled(grads[0].contiguous(), y_RD, weights_NK.contiguous(), route), None
        grad_RD = grads[0].index_select(0, route.token_R)
        grad_weights_R = torch.linalg.vecdot(y_RD, grad_RD)
        grad_weights_NK = grad_weights_R.index_select(0, route.row_NK.flatten()).view_as(weights_NK)
        # A row that only fills up has no weight, and so no gradient.
        weights_R = torch.zeros_like(grad_weights_R).scatter_(
            0, route.row_NK.flatten(), weights_NK.flatten().to(y_RD.dtype)
        )
        return grad_RD.mul_(weights_R[:, None]), grad_weights_NK.to(weights_NK.dtype), None


def _summed(x_RD: Tensor, weights_NK: Tensor | None, route: LocalRoute) -> Tensor:
    """Sum of each token's rows, each times its weight where there are weights, shape (N, D)."""
    if library.usable(x_RD) and (weights_NK is None or weights_NK.dtype == torch.float32):
        y_ND = x_RD.new_empty(len(route.row_NK), x_RD.shape[1])
        weights = None if weights_NK is None else weights_NK.contiguous()
        library.call("combine", x_RD.contiguous(), weights, route.row_NK, y_ND, *route.row_NK.shape, x_RD.shape[1])
        return y_ND
    rows_NKD = _rows(x_RD, route)
    if weights_NK is not None:
        rows_NKD.mul_(weights_NK[..., None].to(x_RD.dtype))
    return _added(rows_NKD.unbind(1))


def _split_compiled(grad_ND: Tensor, y_RD: Tensor, weights_NK: Tensor, route: LocalRoute) -> tuple[Tensor, Tensor]:
    """Gradients of `_Combine` in one pass."""
    filling = len(y_RD) > route.row_NK.numel()
    grad_RD, grad_weights = (torch.zeros_like if filling else torch.empty_like)(y_RD), torch.empty_like(weights_NK)
    library.call(
        "combine_backward", grad_ND, y_RD, weights_NK, route.row_NK, grad_RD, grad_weights,
        *weights_NK.shape, y_RD.shape[1],
    )  # fmt: skip
    return grad_RD, grad_weights


def _rows(x_RD: Tensor, route: LocalRoute) -> Tensor:
    """Rows in the order of their tokens, shape (N, K, D)."""
    return x_RD.index_select(0, route.row_NK.flatten()).unflatten(0, route.row_NK.shape)


def _added(parts: Sequence[Tensor]) -> Tensor:
    """Sum of K tensors (N, D): four times as fast on a CPU as one sum over a dimension of length K."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
