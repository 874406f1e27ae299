"""Experts dealt out over ranks: each holds some, and rows travel to them and back.

Shapes: N tokens of this rank, K experts a token, R rows that travel, P ranks, L experts a rank, D hidden width.
"""

import dataclasses

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from yatsude.model.block import Mixture
from yatsude.model.dispatch import LocalDispatcher, LocalRoute, Route
from yatsude.parallel.collectives import Exchange
from yatsude.parallel.deepep import DeepEP
from yatsude.parallel.place import Cut, keep
from yatsude.spec.parallel import Dispatch

__all__ = ["AllToAll", "FarRoute", "deal"]


@dataclasses.dataclass(frozen=True)
class FarRoute(Route):
    """A route over ranks."""

    here: LocalRoute
    """Of the rows that this rank sends, sorted by expert."""
    there: Exchange
    order_R: Tensor
    """Of the rows that come, by rank and expert, those by expert."""
    back: Exchange


class AllToAll:
    """Sorts rows by expert, exchanges them with the ranks that hold these, and sorts what came by expert again."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh, self.local = mesh, LocalDispatcher(multiple=1)

    def dispatch(self, x_ND: Tensor, weights_NK: Tensor, chosen_NK: Tensor, experts: int) -> tuple[Tensor, FarRoute]:
        """Send rows to the ranks that hold their experts; a ticket for those that come, and their route."""
        rows_RD, here = self.local.dispatch(x_ND, weights_NK, chosen_NK, experts)
        mine_PL = here.counts_E.view(self.mesh.size(), -1)
        theirs_PL = exchanged_counts(mine_PL, self.mesh)
        give, take = self.sizes(mine_PL, theirs_PL)
        there, back = Exchange(take, give, self.mesh), Exchange(give, take, self.mesh)
        ticket = there.leave(rows_RD)
        return ticket, FarRoute(theirs_PL.sum(0), here, there, _by_expert(theirs_PL, sum(take)), back)

    def receive(self, sent: Tensor, route: FarRoute) -> Tensor:
        """Rows for the experts of this rank, sorted by expert, once they have come."""
        (rows_RD,) = route.there.arrive(sent)
        return rows_RD.index_select(0, route.order_R)

    def sizes(self, mine_PL: Tensor, theirs_PL: Tensor) -> tuple[list[int], list[int]]:
        """Rows to give to each rank and to take from it: all that the CPU must know."""
        give, take = torch.stack((mine_PL.sum(1), theirs_PL.sum(1))).tolist()
        return give, take

    def combine(self, y_RD: Tensor, route: FarRoute) -> Tensor:
        """Weighted sum of each token's rows, shape (N, D), once they have come back."""
        by_rank = y_RD.index_select(0, torch.argsort(route.order_R))
        (rows_RD,) = route.back.arrive(route.back.leave(by_rank))
        return self.local.combine(rows_RD, route.here)


def exchanged_counts(mine_PL: Tensor, mesh: DeviceMesh) -> Tensor:
    """How many rows each rank sends to each of this rank's experts, from how many this one sends to all."""
    theirs = torch.empty_like(mine_PL)
    torch.distributed.all_to_all_single(theirs, mine_PL.contiguous(), group=mesh.get_group())
    return theirs


def deal(mixture: Mixture, mesh: DeviceMesh, how: Dispatch) -> None:
    """Keep this rank's share of the experts, and let rows travel."""
    if mesh.size() == 1:
        return
    for name, _ in list(mixture.experts.named_parameters()):
        keep(mixture.experts, name, Cut(0, 1, mesh.get_local_rank(), mesh.size()))
    mixture.dispatcher = DeepEP(mesh) if how == "deepep" else AllToAll(mesh)


def _by_expert(counts_PL: Tensor, rows: int) -> Tensor:
    """Order in which rows that lie by rank, and within a rank by expert, lie by expert."""
    ranks, experts = counts_PL.shape
    expert = torch.arange(experts, device=counts_PL.device).repeat(ranks)
    expert = expert.repeat_interleave(counts_PL.flatten(), output_size=rows)
    return torch.argsort(expert, stable=True)
