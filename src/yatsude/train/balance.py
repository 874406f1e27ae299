"""Balance without an auxiliary loss: a router's bias moves against the load (DeepSeek-V3, section 2.1.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from yatsude.model.transformer import Transformer

__all__ = ["balance"]


@torch.no_grad()
def balance(replicas: Sequence[Transformer], rate: float) -> Tensor:
    """Move each bias by `rate`, up for experts below the mean load and down for those above; clear the counts.

    The replicas share their biases. The loads come back, tokens an expert, shape (mixture layers, E).
    """
    loads = []
    for layer in zip(*(replica.routers for replica in replicas), strict=True):
        load = torch.stack([router.load for router in layer]).sum(0)
        for router in layer:
            router.load.zero_()
        mean = load.float().mean()
        layer[0].e_score_correction_bias += rate * torch.sign(mean - load)
        loads.append(load)
    return torch.stack(loads) if loads else torch.zeros(0, 0, dtype=torch.int64)
