"""Rotary position embedding in interleaved pairs (Su et al. 2021, arXiv 2104.09864), as DeepSeek-V3 lays them out."""

import torch
from torch import Tensor, nn

from yatsude.model.precision import wide

__all__ = ["Rotary", "rotate"]


class Rotary(nn.Module):
    """Turns position numbers into the rotations that `rotate` applies."""

    def __init__(self, width: int, theta: float) -> None:
        super().__init__()
        self.width, self.theta = width, theta

    def forward(self, positions_BT: Tensor) -> Tensor:
        """Unit complex numbers, shape (B, T, width / 2), computed in float32 as transformers does."""
        pairs = torch.arange(0, self.width, 2, dtype=torch.int64, device=positions_BT.device).float()
        frequencies = 1.0 / (self.theta ** (pairs / self.width))
        angles = positions_BT[..., None].float() * frequencies
        return torch.complex(angles.cos(), angles.sin())


def rotate(x: Tensor, rotations_BTR: Tensor) -> Tensor:
    """Rotate neighbouring pairs of the last dimension of `x`, shape (B, T, heads, width)."""
    pairs = torch.view_as_complex(wide(x).unflatten(-1, (-1, 2)))
    turned = pairs * rotations_BTR[:, :, None].to(pairs.dtype)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
