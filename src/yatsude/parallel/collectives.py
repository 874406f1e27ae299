"""Collectives that a gradient passes through, each the other's backward."""

import abc
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import _functional_collectives as functional
from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Exchange", "Journey", "gathered", "scattered", "summed"]


def gathered(part: Tensor, dim: int, mesh: DeviceMesh) -> Tensor:
    """Join the parts of all ranks along a dimension; backward, each rank gets the sum of what they all found of its."""
    if mesh.size() == 1:
        return part
    return functional.all_gather_single_autograd(part.contiguous(), dim, mesh)


def scattered(whole: Tensor, dim: int, mesh: DeviceMesh) -> Tensor:
    """Add up what all ranks have, and keep this rank's part along a dimension; backward, the parts are joined."""
    if mesh.size() == 1:
        return whole
    return functional.reduce_scatter_single_autograd(whole.contiguous(), "sum", dim, mesh)


def summed(tensor: Tensor, mesh: DeviceMesh) -> Tensor:
    """The sum over all ranks, without a gradient."""
    if mesh.size() > 1:
        torch.distributed.all_reduce(tensor, group=mesh.get_group())
    return tensor


class Journey(abc.ABC):
    """Tensors on their way to other ranks, and their gradients on the way back.

    What is computed between `leave` and `arrive` is computed meanwhile. Backward, gradients set out where the tensors
    arrived and come back where these left, and in between the gradient of the same work is taken.
    """

    def leave(self, *tensors: Tensor) -> Tensor:
        """Let tensors set out; a ticket comes back, without which nobody can wait for what comes."""
        return _Leave.apply(self, *tensors)

    def arrive(self, ticket: Tensor) -> tuple[Tensor, ...]:
        """Wait for what comes."""
        return _Arrive.apply(self, ticket)

    @abc.abstractmethod
    def begin(self, *tensors: Tensor) -> None:
        """Begin to exchange tensors."""

    @abc.abstractmethod
    def begin_back(self, *grads: Tensor) -> None:
        """Begin to exchange the gradients of what came."""

    @abc.abstractmethod
    def end(self) -> tuple[Tensor, ...]:
        """Wait for what was begun last."""


class Exchange(Journey):
    """All-to-all: `give[i]` rows go to rank i, in order, and `take[i]` come from it."""

    def __init__(self, take: list[int], give: list[int], mesh: DeviceMesh) -> None:
        self._take, self._give, self._group = take, give, mesh.get_group().group_name
        self._coming: Tensor | None = None

    def begin(self, *tensors: Tensor) -> None:
        """Send the rows."""
        self._send(tensors, self._take, self._give)

    def begin_back(self, *grads: Tensor) -> None:
        """Send the gradients of rows to where these came from."""
        self._send(grads, self._give, self._take)

    def end(self) -> tuple[Tensor, ...]:
        """Wait for the rows, or the gradients, that come."""
        coming, self._coming = self._coming, None
        return (torch.ops._c10d_functional.wait_tensor(coming),)

    def _send(self, tensors: Sequence[Tensor], take: list[int], give: list[int]) -> None:
        (rows,) = tensors
        self._coming = torch.ops._c10d_functional.all_to_all_single(rows.contiguous(), take, give, self._group)


class _Leave(torch.autograd.Function):
    """The first half of a journey, and backward the second half of the way back."""

    @staticmethod
    def forward(ctx: Any, journey: Journey, *tensors: Tensor) -> Tensor:
        ctx.journey = journey
        journey.begin(*tensors)
        return tensors[0].new_empty(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.journey.end()


class _Arrive(torch.autograd.Function):
    """The second half of a journey, and backward the first half of the way back."""

    @staticmethod
    def forward(ctx: Any, journey: Journey, ticket: Tensor) -> tuple[Tensor, ...]:
        ctx.journey = journey
        return journey.end()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        ctx.journey.begin_back(*grads)
        return None, grads[0].new_empty(())
