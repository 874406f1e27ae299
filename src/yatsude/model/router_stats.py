"""Figures of a router's load: whether any expert is idle, or does the work of all. It counts; others show.

Shapes: L mixture layers, E experts.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["LayerLoad", "Percentiles", "bias_ranges", "drift", "layer_loads", "percentiles", "relative_load"]


@dataclasses.dataclass(frozen=True)
class LayerLoad:
    """How evenly one layer's experts are used."""

    busiest: float
    """Load of the busiest expert over the mean; 1 is even, E is one expert alone."""
    idlest: float
    entropy: float
    """Of the load, as a share of the greatest possible: 1 is even."""
    dead: int
    """Experts without a single token."""
    bias_range: float | None = None
    """Greatest less least of the biases that balance the layer; None where the router has none."""


@dataclasses.dataclass(frozen=True)
class Percentiles:
    """Where a figure lies in one layer of ten, in the middle one, and in nine of ten."""

    p10: float
    p50: float
    p90: float


def relative_load(loads_LE: Tensor) -> Tensor:
    """Tokens of each expert over the mean of its layer: 1 everywhere is perfect balance. Shape (L, E)."""
    loads = loads_LE.double()
    return loads / loads.mean(-1, keepdim=True).clamp_min(1e-9)


def layer_loads(loads_LE: Tensor, biases: Sequence[float | None] = ()) -> list[LayerLoad]:
    """Figures of each layer, bottom to top; `biases` are the layers' `bias_ranges`, where they are known."""
    relative = relative_load(loads_LE)
    entropy = torch.special.entr(_shares(loads_LE)).sum(-1) / math.log(max(loads_LE.shape[-1], 2))
    rows = zip(relative, entropy, biases or [None] * len(relative), strict=True)
    return [
        LayerLoad(float(row.max()), float(row.min()), float(e), int((row == 0).sum()), bias) for row, e, bias in rows
    ]


def bias_ranges(routers: Iterable[nn.Module]) -> list[float | None]:
    """Greatest less least bias of each router; None for a router that is balanced in another way."""
    biases = [getattr(router, "e_score_correction_bias", None) for router in routers]
    ranges = [bias.max() - bias.min() for bias in biases if bias is not None]
    known = iter(torch.stack(ranges).tolist() if ranges else [])  # in one piece: a GPU is waited for once
    return [None if bias is None else next(known) for bias in biases]


def percentiles(layers: Sequence[LayerLoad]) -> dict[str, Percentiles]:
    """Each figure over the layers, by its name; what no layer has is left out."""
    rows = [dataclasses.asdict(layer) for layer in layers]
    columns = {field.name: [row[field.name] for row in rows] for field in dataclasses.fields(LayerLoad)}
    known = {name: [v for v in column if v is not None] for name, column in columns.items()}
    at = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    return {
        name: Percentiles(*torch.tensor(values, dtype=torch.float64).quantile(at).tolist())
        for name, values in known.items()
        if values
    }


def drift(before_LE: Tensor, after_LE: Tensor) -> list[float]:
    """Share of each layer's load that moved to other experts between two moments: 0 none, 1 all of it.

    This is the total variation distance, half the sum of the differences of the shares.
    """
    return (0.5 * (_shares(before_LE) - _shares(after_LE)).abs().sum(-1)).tolist()


def _shares(loads_LE: Tensor) -> Tensor:
    loads = loads_LE.double()
    return loads / loads.sum(-1, keepdim=True).clamp_min(1e-9)
