"""Balance of the experts: a router's bias moves against the load (DeepSeek-V3, section 2.1.2), or a loss does it.

A router with sigmoid scores has a bias, a buffer that no optimizer sees. One with softmax scores has none; there, and
beside the bias where wished, the auxiliary losses of `model.router.Penalties` even the load out.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from yatsude.model.router import Penalties
from yatsude.model.transformer import Transformer
from yatsude.train.settings import LoopSettings

__all__ = ["balance", "penalise", "penalties_of"]


def penalties_of(settings: LoopSettings) -> Penalties | None:
    """Auxiliary losses that a run has, before it is known of how many sequences they are means; none if it has none."""
    if not (settings.sequence_balance or settings.router_z):
        return None
    return Penalties(sequence=settings.sequence_balance, z=settings.router_z)


def _local(loads_LE: Tensor) -> Tensor:
    return loads_LE


@torch.no_grad()
def balance(replicas: Sequence[Transformer], rate: float, reduce: Callable[[Tensor], Tensor] = _local) -> Tensor:
    """Move each bias by `rate`, up for experts below the mean load and down for those above; clear the counts.

    The replicas share their biases. `reduce` adds the counts of all data-parallel ranks up, each of which then moves
    its bias alike. The loads come back, tokens an expert, shape (mixture layers, E).
    """
    layers = list(zip(*(replica.routers for replica in replicas), strict=True))
    if not layers:
        return torch.zeros(0, 0, dtype=torch.int64)
    loads_LE = reduce(torch.stack([torch.stack([router.load for router in layer]).sum(0) for layer in layers]))
    for layer, load in zip(layers, loads_LE, strict=True):
        for router in layer:
            router.load.zero_()
        bias = layer[0].e_score_correction_bias
        if bias is not None:
            bias += rate * torch.sign(load.float().mean() - load)
    return loads_LE


def penalise(replicas: Sequence[Transformer], *, sequence: float, z: float, sequences: int) -> None:
    """Give every router its auxiliary losses, as means over the `sequences` of a whole step; weights of 0 give none."""
    penalties = Penalties(sequence=sequence, z=z, sequences=sequences) if sequence or z else None
    for replica in replicas:
        for router in replica.routers:
            router.penalties = penalties
