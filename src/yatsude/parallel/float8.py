"""Products of the layers in FP8, put in from outside: e4m3 with a scale a row (Micikevicius et al., arXiv 2209.05433).

What a product reads is cast, the result is in the precision of what came in. Gradients of inputs are such products too;
those of weights stay as they are, since they are summed up over many tokens. Embedding, head, routers and norms are
left alone, as in DeepSeek-V3 (arXiv 2412.19437, section 3.3). Shapes: N rows, I inputs, O outputs, E experts.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from yatsude.model.block import Block
from yatsude.model.experts import Experts, grouped_product
from yatsude.model.float8 import LARGEST

__all__ = ["in_float8", "rows", "scaled_grouped"]

MULTIPLE = 16
"""Of rows and columns of a matrix that the hardware's product takes."""


def in_float8(block: Block) -> None:
    """Let the large products of a layer run in FP8."""
    for module in block.modules():
        if isinstance(module, nn.Linear):
            module.forward = functools.partial(_linear, module)  # type: ignore[method-assign]
        elif isinstance(module, Experts):
            module.product = _grouped


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    if any(size % MULTIPLE for size in module.weight.shape):
        return functional.linear(x, module.weight, module.bias)
    # FSDP wants no view to hang its hooks on
    y = torch.ops.aten._unsafe_view(
        _Product.apply(x.flatten(0, -2), module.weight), (*x.shape[:-1], len(module.weight))
    )
    return y if module.bias is None else y + module.bias


def _grouped(x_RI: Tensor, weight_EOI: Tensor, counts_E: Tensor) -> Tensor:
    if any(size % MULTIPLE for size in weight_EOI.shape[1:]):
        return grouped_product(x_RI, weight_EOI, counts_E)
    return _GroupedProduct.apply(x_RI, weight_EOI, counts_E)


class _Product(torch.autograd.Function):
    """x · weightᵀ."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x_NI, weight_OI)
        return _scaled(x_NI, weight_OI)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_NI, weight_OI = ctx.saved_tensors
        grad_NO = grads[0].contiguous()
        inputs, weights = ctx.needs_input_grad
        return (_scaled(grad_NO, weight_OI.t()) if inputs else None, grad_NO.t() @ x_NI if weights else None)


class _GroupedProduct(torch.autograd.Function):
    """Each expert's rows times its weight transposed."""

    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_EOI: Tensor, counts_E: Tensor) -> Tensor:
        ctx.save_for_backward(x_RI, weight_EOI, counts_E)
        return scaled_grouped(x_RI, weight_EOI, counts_E)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_RI, weight_EOI, counts_E = ctx.saved_tensors
        grad_RO = grads[0].contiguous()
        inputs, weights, _ = ctx.needs_input_grad
        grad_x = scaled_grouped(grad_RO, weight_EOI.transpose(1, 2), counts_E) if inputs else None
        ends_E = counts_E.cumsum(0).to(torch.int32)
        return grad_x, functional.grouped_mm(grad_RO.t(), x_RI, offs=ends_E) if weights else None, None


def _scaled(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    x, x_scale = rows(x_NI)
    weight, scale = rows(weight_OI)
    return torch._scaled_mm(x, weight.t(), scale_a=x_scale, scale_b=scale.t(), out_dtype=x_NI.dtype)


def scaled_grouped(x_RI: Tensor, weight_EOI: Tensor, counts_E: Tensor) -> Tensor:
    """Each expert's rows (R, I) times its weight (E, O, I) transposed, both cast: (R, O)."""
    if x_RI.device.type == "cpu":  # PyTorch has no such product there
        groups = zip(x_RI.split(counts_E.tolist()), weight_EOI.unbind(0), strict=True)
        return torch.cat([_scaled(x, weight) if len(x) else x @ weight.t() for x, weight in groups])
    x, x_scale = rows(x_RI)
    weight, scale = rows(weight_EOI)
    ends_E = counts_E.cumsum(0).to(torch.int32)
    return torch._scaled_grouped_mm(
        x, weight.transpose(1, 2), x_scale[:, 0], scale[..., 0], offs=ends_E, out_dtype=x_RI.dtype
    )


def rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of e4m3, and a float32 scale a row, so that the largest of each row is as large as e4m3 can be."""
    scale = x.detach().abs().amax(-1, keepdim=True).float().clamp_min(1e-12) / LARGEST
    return (x.float() / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).contiguous(), scale
