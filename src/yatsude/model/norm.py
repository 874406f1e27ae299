"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467)."""

from typing import Any

import torch
from torch import Tensor, nn

from yatsude.model import precision

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
            return _Normalise.apply(x, self.weight, self.eps)
        return _scaled(x, self.eps)[0].to(x.dtype) * self.weight


def _scaled(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x_wide = precision.wide(x)
    inverse = torch.rsqrt(x_wide.square().mean(-1, keepdim=True) + eps)
    return x_wide * inverse, inverse


class _Normalise(torch.autograd.Function):
    """The same with a backward of its own: autograd would keep and walk five wide copies of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scaled, inverse = _scaled(x, eps)
        ctx.save_for_backward(x, weight, inverse)
        return scaled.to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        scaled = precision.wide(x) * inverse
        grad = precision.wide(grads[0])
        grad_weight = (grad * scaled).flatten(0, -2).sum(0)
        grad = grad * precision.wide(weight)
        along = (grad * scaled).mean(-1, keepdim=True)
        grad_x = grad.sub_(scaled.mul_(along)).mul_(inverse)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None
