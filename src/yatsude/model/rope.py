"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), and its stretching to longer texts."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from yatsude.model.native import library
from yatsude.model.precision import wide
from yatsude.spec.config import ModelConfig
from yatsude.spec.rope_scaling import RopeScaling

__all__ = ["Rotary", "rotate"]


class Rotary(nn.Module):
    """Turns position numbers into the rotations that `rotate` applies."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width, self.theta, self.scaling = config.rotary_dim, config.rope_theta, config.rope_scaling

    def forward(self, positions_BT: Tensor) -> Tensor:
        """Complex numbers, shape (B, T, width / 2), computed in float32 as transformers does."""
        angles = positions_BT[..., None].float() * self.frequencies(positions_BT.device)
        length = self.scaling.rotation_factor if self.scaling else 1.0
        return torch.complex(angles.cos() * length, angles.sin() * length)

    def frequencies(self, device: torch.device) -> Tensor:
        """Radians that each pair turns by a position, shape (width / 2,)."""
        pairs = torch.arange(0, self.width, 2, dtype=torch.int64, device=device).float()
        plain = 1.0 / (self.theta ** (pairs / self.width))
        if self.scaling is None:
            return plain
        if self.scaling.rope_type == "yarn":
            return _yarn(plain, self.scaling, self.theta)
        return _llama3(plain, self.scaling) if self.scaling.rope_type == "llama3" else plain / self.scaling.factor


def _yarn(plain: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    """Slow pairs are slowed down by the factor, fast ones are left, with a ramp between (arXiv 2309.00071, eq. 13)."""
    width = 2 * len(plain)

    def pair_of(turns: float) -> float:
        """Which pair makes so many turns over the first length."""
        length = scaling.original_max_position_embeddings
        return width * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_of(scaling.beta_fast), pair_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = (torch.arange(len(plain), device=plain.device).float() - low) / (high - low if high != low else 0.001)
    slow = ramp.clamp(0, 1)
    return plain / scaling.factor * slow + plain * (1 - slow)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """The same by wavelengths: longer than the first length / low_freq_factor are slowed down, with a smooth ramp."""
    turns = scaling.original_max_position_embeddings * plain / (2 * math.pi)
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = smooth.clamp(0, 1)
    return plain / scaling.factor * (1 - kept) + plain * kept


def rotate(x: Tensor, rotations_BTR: Tensor, interleaved: bool = True) -> Tensor:
    """Rotate pairs of the last dimension of `x`, shape (B, T, heads, width).

    A pair is two neighbours if `interleaved`, else a number of the first half and its partner in the second.
    """
    if interleaved and torch.is_grad_enabled() and x.requires_grad and x.stride(-1) == 1 and library.usable(x):
        return _Compiled.apply(x, rotations_BTR)
    x_wide = wide(x)
    if not interleaved:
        x_wide = x_wide.unflatten(-1, (2, -1)).transpose(-1, -2).contiguous().flatten(-2)
    pairs = torch.view_as_complex(x_wide.unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * rotations_BTR[:, :, None].to(pairs.dtype))
    return (turned if interleaved else turned.transpose(-1, -2)).flatten(-2).to(x.dtype)


class _Compiled(torch.autograd.Function):
    """Neighbouring pairs in one pass each way: the gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rotations_BTR: Tensor) -> Tensor:
        ctx.rotations = rotations_BTR.contiguous()
        return _turned(x, ctx.rotations, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0] if grads[0].stride(-1) == 1 else grads[0].contiguous()
        return _turned(grad, ctx.rotations, -1.0), None


def _turned(x: Tensor, rotations_BTR: Tensor, sign: float) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype)
    step = rotations_BTR[0].numel() * 2 if len(rotations_BTR) > 1 else 0  # one row of positions may serve all
    library.call("rotate", x, rotations_BTR, y, *x.shape, *x.stride()[:3], step, sign)
    return y
