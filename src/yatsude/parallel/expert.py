"""Experts dealt out over ranks: each holds some, and rows travel to them and back.

Shapes: N tokens of this rank, K experts a token, R rows that travel, P ranks, L experts a rank, D hidden width.
"""

import dataclasses

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from yatsude.model.block import Mixture
from yatsude.model.dispatch import LocalDispatcher, Route
from yatsude.parallel.collectives import exchanged
from yatsude.parallel.place import Cut, keep

__all__ = ["AllToAll", "deal"]


@dataclasses.dataclass(frozen=True)
class Travelled(Route):
    """A route over ranks: `counts_E` are the rows that came to this rank's experts, the rest is of those it sent."""

    sent: Route
    order_R: Tensor
    """Of the rows that came, by rank and expert, those by expert."""
    take: list[int]
    give: list[int]


class AllToAll:
    """Sorts rows by expert, exchanges them with the ranks that hold these, and sorts what came by expert again."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh, self.local = mesh, LocalDispatcher(multiple=1)

    def dispatch(self, x_ND: Tensor, chosen_NK: Tensor, experts: int) -> tuple[Tensor, Route]:
        """Rows for the experts of this rank, sorted by expert, and the way back."""
        rows_RD, route = self.local.dispatch(x_ND, chosen_NK, experts)
        ranks = self.mesh.size()
        mine_PL = route.counts_E.view(ranks, -1)
        theirs_PL = exchanged_counts(mine_PL, self.mesh)
        give, take = self.sizes(mine_PL, theirs_PL)
        came_RD = exchanged(rows_RD, take, give, self.mesh)
        order = _by_expert(theirs_PL, len(came_RD))
        there = Travelled(route.token_R, route.row_NK, theirs_PL.sum(0), route, order, take, give)
        return came_RD.index_select(0, order), there

    def sizes(self, mine_PL: Tensor, theirs_PL: Tensor) -> tuple[list[int], list[int]]:
        """Rows to give to each rank and to take from it: all that the CPU must know."""
        give, take = torch.stack((mine_PL.sum(1), theirs_PL.sum(1))).tolist()
        return give, take

    def combine(self, y_RD: Tensor, weights_NK: Tensor, route: Route) -> Tensor:
        """Weighted sum of each token's rows, shape (N, D), once they have come back."""
        assert isinstance(route, Travelled), "made by dispatch"
        by_rank = y_RD.index_select(0, torch.argsort(route.order_R))
        back = exchanged(by_rank, route.give, route.take, self.mesh)
        return self.local.combine(back, weights_NK, route.sent)


def exchanged_counts(mine_PL: Tensor, mesh: DeviceMesh) -> Tensor:
    """How many rows each rank sends to each of this rank's experts, from how many this one sends to all."""
    theirs = torch.empty_like(mine_PL)
    torch.distributed.all_to_all_single(theirs, mine_PL.contiguous(), group=mesh.get_group())
    return theirs


def deal(mixture: Mixture, mesh: DeviceMesh) -> None:
    """Keep this rank's share of the experts, and let rows travel."""
    if mesh.size() == 1:
        return
    for name, _ in list(mixture.experts.named_parameters()):
        keep(mixture.experts, name, Cut(0, 1, mesh.get_local_rank(), mesh.size()))
    mixture.dispatcher = AllToAll(mesh)


def _by_expert(counts_PL: Tensor, rows: int) -> Tensor:
    """Order in which rows that lie by rank, and within a rank by expert, lie by expert."""
    ranks, experts = counts_PL.shape
    expert = torch.arange(experts, device=counts_PL.device).repeat(ranks)
    expert = expert.repeat_interleave(counts_PL.flatten(), output_size=rows)
    return torch.argsort(expert, stable=True)
