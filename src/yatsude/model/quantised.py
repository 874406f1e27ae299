"""Parts whose weights stay in FP8 and are widened when they are used: half the memory of bf16, more work a step.

Only for inference; there is no gradient. Shapes: O rows and I columns of a weight, E experts, R rows sorted by expert.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from yatsude.model import float8
from yatsude.model.experts import Experts
from yatsude.model.router import Router
from yatsude.model.swiglu import swiglu
from yatsude.model.transformer import Transformer

__all__ = ["Quantised", "quantise"]


class Quantised(nn.Module):
    """A part with weights in FP8, each with its scales beside it."""

    def __init__(self, dtype: torch.dtype, blocks: tuple[int, int]) -> None:
        super().__init__()
        self.dtype, self.blocks = dtype, blocks

    def hold(self, name: str, shape: torch.Size) -> None:
        """Make room for a weight, (O, I) or (E, O, I)."""
        scales = (*shape[:-2], *float8.scale_shape(tuple(shape[-2:]), self.blocks))
        self.register_buffer(f"{name}_stored", torch.empty(shape, dtype=torch.float8_e4m3fn))
        self.register_buffer(f"{name}_scale", torch.empty(scales))

    def held(self, name: str) -> tuple[Tensor, Tensor]:
        """What is stored of a weight, and its scales."""
        return getattr(self, f"{name}_stored"), getattr(self, f"{name}_scale")

    def widened(self, name: str, expert: int | None = None) -> Tensor:
        """Give a weight in the precision of the products."""
        stored, scale = self.held(name)
        if expert is not None:
            stored, scale = stored[expert], scale[expert]
        return float8.dequantised(stored, scale, self.blocks).to(self.dtype)


class _Linear(Quantised):
    def __init__(self, plain: nn.Linear, dtype: torch.dtype, blocks: tuple[int, int]) -> None:
        super().__init__(dtype, blocks)
        self.hold("weight", plain.weight.shape)
        self.bias = plain.bias

    @property
    def weight(self) -> Tensor:
        """The weight, widened."""
        return self.widened("weight")

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (..., I) to (..., O)."""
        return functional.linear(x, self.weight, self.bias)


class _Experts(Quantised):
    def __init__(self, plain: Experts, dtype: torch.dtype, blocks: tuple[int, int]) -> None:
        super().__init__(dtype, blocks)
        for name in ("gate_up_proj", "down_proj"):
            self.hold(name, getattr(plain, name).shape)

    def forward(self, x_RD: Tensor, counts_E: Tensor) -> Tensor:
        """Apply each expert to its rows, in order; only those with rows are widened."""
        out = []
        for expert, rows in enumerate(x_RD.split(counts_E.tolist())):
            if len(rows):
                hidden = swiglu(functional.linear(rows, self.widened("gate_up_proj", expert)))
                out.append(functional.linear(hidden, self.widened("down_proj", expert)))
        return torch.cat(out)


def quantise(model: Transformer, dtype: torch.dtype, blocks: tuple[int, int]) -> None:
    """Put parts in FP8 in the place of all matrices of the layers; their numbers are not filled in."""
    for block in [*model.layers, *(layer.block for layer in model.mtp)]:
        _replace(block, dtype, blocks)


def _replace(module: nn.Module, dtype: torch.dtype, blocks: tuple[int, int]) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, _Linear(child, dtype, blocks))
        elif isinstance(child, Experts):
            setattr(module, name, _Experts(child, dtype, blocks))
        elif not isinstance(child, Router):
            _replace(child, dtype, blocks)
