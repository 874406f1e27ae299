"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467)."""

from typing import Any

import torch
from torch import Tensor, nn

from yatsude.model import precision
from yatsude.model.native import library

__all__ = ["RMSNorm"]


class RMSNorm(nn.Module):
    """y = weight · x / sqrt(mean(x²) + eps) over the last dimension, computed in at least float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, shape (..., width); shape and dtype stay."""
        if torch.is_grad_enabled() and x.requires_grad:
            function = _Compiled if library.usable(x, self.weight) else _Normalise
            return function.apply(x, self.weight, self.eps)
        return _normalised(x, self.eps)[0] * self.weight


def _normalised(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Compute x / sqrt(mean(x²) + eps) in the dtype of x; with it comes the factor, (..., 1), at least float32."""
    x_wide = precision.wide(x)
    inverse = torch.rsqrt(torch.linalg.vecdot(x_wide, x_wide)[..., None] / x.shape[-1] + eps)
    return (x_wide * inverse).to(x.dtype), inverse


class _Normalise(torch.autograd.Function):
    """The same with a backward of its own: autograd would keep and walk five wide copies of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scaled, inverse = _normalised(x, eps)
        ctx.save_for_backward(scaled, weight, inverse)
        return scaled * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        scaled, weight, inverse = ctx.saved_tensors
        scaled, grad, wide_weight = (precision.wide(t) for t in (scaled, grads[0], weight))
        product = grad * scaled
        along = (product @ wide_weight)[..., None] / weight.shape[0]
        grad_x = (grad * wide_weight).addcmul_(scaled, along, value=-1).mul_(inverse)
        return grad_x.to(grads[0].dtype), product.flatten(0, -2).sum(0).to(weight.dtype), None


class _Compiled(torch.autograd.Function):
    """The same in one pass over the rows each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        rows = x.flatten(0, -2)
        if rows.stride(-1) != 1:
            rows = rows.contiguous()
        y, inverse = torch.empty(x.shape, dtype=x.dtype), torch.empty(len(rows))
        library.call("norm_forward", rows, weight, y, inverse, *rows.shape, rows.stride(0), eps)
        ctx.save_for_backward(rows, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight, inverse = ctx.saved_tensors
        grad, grad_weight = grads[0].contiguous(), torch.empty_like(weight)
        grad_x = torch.empty_like(grad)
        library.call(
            "norm_backward", grad, rows, weight, inverse, grad_x, grad_weight, *rows.shape, rows.stride(0)
        )  # fmt: skip
        return grad_x, grad_weight, None
