"""Figures of a router's load: whether any expert is idle, or does the work of all.

Shapes: L mixture layers, E experts.
"""

import dataclasses
import math

import torch
from torch import Tensor

__all__ = ["LayerLoad", "layer_loads", "relative_load"]


@dataclasses.dataclass(frozen=True)
class LayerLoad:
    """Load of one layer's experts over their mean, and its entropy as a share of the greatest possible."""

    busiest: float
    idlest: float
    entropy: float


def relative_load(loads_LE: Tensor) -> Tensor:
    """Tokens of each expert over the mean of its layer: 1 everywhere is perfect balance. Shape (L, E)."""
    loads = loads_LE.double()
    return loads / loads.mean(-1, keepdim=True).clamp_min(1e-9)


def layer_loads(loads_LE: Tensor) -> list[LayerLoad]:
    """Figures of each layer, bottom to top."""
    relative = relative_load(loads_LE)
    shares = loads_LE.double() / loads_LE.double().sum(-1, keepdim=True).clamp_min(1e-9)
    entropy = torch.special.entr(shares).sum(-1) / math.log(max(loads_LE.shape[-1], 2))
    return [
        LayerLoad(busiest=float(row.max()), idlest=float(row.min()), entropy=float(e))
        for row, e in zip(relative, entropy, strict=True)
    ]
