"""The routed experts, and the only place that multiplies them: one grouped product, one plain reference.

Shapes: E experts, R rows sorted by expert, D hidden width, I expert width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from yatsude.model.swiglu import swiglu
from yatsude.spec.config import ModelConfig

__all__ = ["Experts", "grouped_product", "grouped_product_reference"]


class Experts(nn.Module):
    """All routed experts of a layer as two stacked weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, width = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))
        self.product = grouped_product

    def forward(self, x_RD: Tensor, counts_E: Tensor) -> Tensor:
        """Apply expert e to its `counts_E[e]` rows, in order; shape (R, D) stays."""
        hidden = swiglu(self.product(x_RD, self.gate_up_proj, counts_E))
        return self.product(hidden, self.down_proj, counts_E)


def grouped_product(x_RI: Tensor, weight_EOI: Tensor, counts_E: Tensor) -> Tensor:
    """Multiply each expert's rows by its own weight: (R, I) with (E, O, I) to (R, O).

    An expert without rows still takes part in the graph: its gradient is zero, not missing.
    """
    aligned = all(size * x_RI.element_size() % 16 == 0 for size in weight_EOI.shape[1:])
    if x_RI.dtype == torch.float64 or not aligned:
        return grouped_product_reference(x_RI, weight_EOI, counts_E)
    ends_E = counts_E.cumsum(0).to(torch.int32)
    return functional.grouped_mm(x_RI, weight_EOI.transpose(1, 2), offs=ends_E)


def grouped_product_reference(x_RI: Tensor, weight_EOI: Tensor, counts_E: Tensor) -> Tensor:
    """The same as one plain product an expert: any dtype, any shape."""
    groups = zip(x_RI.split(counts_E.tolist()), weight_EOI.unbind(0), strict=True)
    return torch.cat([functional.linear(x, weight) for x, weight in groups])
