"""Tokens to experts and back. The model is handed a dispatcher: this one stays in the process.

Shapes: N tokens, K experts a token, R = N·K routed rows in the order of their experts, D hidden width, E experts.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Dispatcher", "LocalDispatcher", "Route"]


@dataclasses.dataclass(frozen=True)
class Route:
    """Where each routed row came from, and how many rows each expert received."""

    token_R: Tensor
    row_NK: Tensor
    counts_E: Tensor


class Dispatcher(Protocol):
    """Brings rows to the experts of this process and the answers back to their tokens."""

    def dispatch(self, x_ND: Tensor, chosen_NK: Tensor, experts: int) -> tuple[Tensor, Route]:
        """Rows sorted by expert, shape (R, D), and the way back."""
        ...

    def combine(self, y_RD: Tensor, weights_NK: Tensor, route: Route) -> Tensor:
        """Weighted sum of each token's rows, shape (N, D)."""
        ...


class LocalDispatcher:
    """All experts live in this process: a stable sort is the whole journey."""

    def dispatch(self, x_ND: Tensor, chosen_NK: Tensor, experts: int) -> tuple[Tensor, Route]:
        """Rows sorted by expert, shape (R, D), and the way back."""
        flat = chosen_NK.flatten()
        order_R = torch.argsort(flat, stable=True)
        row = torch.empty_like(order_R).scatter_(0, order_R, torch.arange(len(flat), device=flat.device))
        route = Route(
            token_R=order_R // chosen_NK.shape[1],
            row_NK=row.view_as(chosen_NK),
            counts_E=torch.bincount(flat, minlength=experts),
        )
        return _Gather.apply(x_ND, route), route

    def combine(self, y_RD: Tensor, weights_NK: Tensor, route: Route) -> Tensor:
        """Weighted sum of each token's rows, shape (N, D)."""
        return _Combine.apply(y_RD, weights_NK, route)


class _Gather(torch.autograd.Function):
    """Copy each token to its K rows; backward adds K rows up, where autograd would scatter into zeros."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, route: Route) -> Tensor:
        ctx.route = route
        return x_ND.index_select(0, route.token_R)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _added(_rows(grads[0], ctx.route).unbind(1)), None


class _Combine(torch.autograd.Function):
    """Weighted sum of K rows a token, with gradients for rows and weights."""

    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, weights_NK: Tensor, route: Route) -> Tensor:
        ctx.save_for_backward(y_RD, weights_NK)
        ctx.route = route
        return _added(_rows(y_RD, route).mul_(weights_NK[..., None].to(y_RD.dtype)).unbind(1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        y_RD, weights_NK = ctx.saved_tensors
        route: Route = ctx.route
        grad_RD = grads[0].index_select(0, route.token_R)
        grad_weights_R = torch.linalg.vecdot(y_RD, grad_RD)
        grad_weights_NK = grad_weights_R.index_select(0, route.row_NK.flatten()).view_as(weights_NK)
        weights_R = torch.empty_like(grad_weights_R).scatter_(
            0, route.row_NK.flatten(), weights_NK.flatten().to(y_RD.dtype)
        )
        return grad_RD.mul_(weights_R[:, None]), grad_weights_NK.to(weights_NK.dtype), None


def _rows(x_RD: Tensor, route: Route) -> Tensor:
    """Rows in the order of their tokens, shape (N, K, D)."""
    return x_RD.index_select(0, route.row_NK.flatten()).unflatten(0, route.row_NK.shape)


def _added(parts: Sequence[Tensor]) -> Tensor:
    """Sum of K tensors (N, D): four times as fast on a CPU as one sum over a dimension of length K."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
