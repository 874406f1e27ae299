"""Sequences cut over ranks: which tokens are whose, and keys of all of them for everybody's queries.

A sequence is cut into 2 x cp pieces, and rank c has piece c and piece 2 cp - 1 - c: early queries see little, late ones
much, and so all ranks have the same work. For latent attention what travels is the latent and the rotary key, 576
numbers a token in DeepSeek-V3, whatever the number of heads.
"""

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from yatsude.errors import RecipeError
from yatsude.parallel.collectives import gathered
from yatsude.parallel.mesh import Mesh

__all__ = ["Context"]


class Context:
    """What this rank has of sequences of `length` tokens."""

    def __init__(self, mesh: Mesh, length: int) -> None:
        cp, tp = mesh.cp, mesh.tp
        pieces = 2 * cp.size() if cp.size() > 1 else 1
        if length % (pieces * tp.size()):
            raise RecipeError(
                f"train.sequence_length = {length}: expected a multiple of {pieces * tp.size()} for parallel.cp ="
                f" {cp.size()} (two pieces a rank) and tp = {tp.size()}"
            )
        shares = [_places(rank, cp.size(), length) for rank in range(cp.size())]
        mine = shares[cp.get_local_rank()]
        self.queries_T = mine.to(mesh.device)
        """Places of the tokens whose queries this rank's attention takes."""
        self.tokens_T = mine.tensor_split(tp.size())[tp.get_local_rank()]
        """Places of the tokens that this rank has between the parts that tensor parallelism cuts; on the CPU."""
        self.keys = Everybody(cp, torch.argsort(torch.cat(shares)).to(mesh.device)) if cp.size() > 1 else None


class Everybody:
    """A `Cache` of this very forward pass: keys and values of all ranks, in the order of the sequence."""

    learns = True

    def __init__(self, mesh: DeviceMesh, order_S: Tensor) -> None:
        self.mesh, self.order_S = mesh, order_S

    def append(self, layer: int, first_BTX: Tensor, second_BTY: Tensor) -> tuple[Tensor, Tensor]:
        """Join what all ranks have of both."""
        widths = first_BTX.shape[-1], second_BTY.shape[-1]
        whole = gathered(torch.cat((first_BTX, second_BTY), -1), 1, self.mesh).index_select(1, self.order_S)
        first, second = whole.split(widths, -1)
        return first, second


def _places(rank: int, ranks: int, length: int) -> Tensor:
    """Places of one rank's tokens, rising."""
    if ranks == 1:
        return torch.arange(length)
    pieces = torch.arange(length).tensor_split(2 * ranks)
    return torch.cat((pieces[rank], pieces[2 * ranks - 1 - rank]))
