"""Collectives that a gradient passes through, each the other's backward."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed import _functional_collectives as functional
from torch.distributed.device_mesh import DeviceMesh

__all__ = ["exchanged", "gathered", "scattered", "summed"]


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


def exchanged(rows: Tensor, take: list[int], give: list[int], mesh: DeviceMesh) -> Tensor:
    """Give `give[i]` rows to rank i, in order, and take `take[i]` from it; backward, the gradients go the other way."""
    if mesh.size() == 1:
        return rows
    return _Exchange.apply(rows, take, give, mesh)


def summed(tensor: Tensor, mesh: DeviceMesh) -> Tensor:
    """The sum over all ranks, without a gradient."""
    if mesh.size() > 1:
        torch.distributed.all_reduce(tensor, group=mesh.get_group())
    return tensor


class _Exchange(torch.autograd.Function):
    """All-to-all; a function of its own, since the library's saves no sizes for rows that are none."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, take: list[int], give: list[int], mesh: DeviceMesh) -> Tensor:
        ctx.take, ctx.give, ctx.mesh = take, give, mesh
        return functional.wait_tensor(functional.all_to_all_single(rows.contiguous(), take, give, mesh))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        back = functional.all_to_all_single(grads[0].contiguous(), ctx.give, ctx.take, ctx.mesh)
        return functional.wait_tensor(back), None, None, None
