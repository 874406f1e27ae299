"""Weights in FP8 (e4m3) with a float32 scale a block, as DeepSeek-V3 is published: arXiv 2412.19437, section 3.3.

A stored number is weight / scale, the scale of a block its largest absolute weight / 448. Files call the scales
`weight_scale_inv`. Shapes: (rows, columns) of weights, (ceil(rows / r), ceil(columns / c)) of scales for blocks (r, c).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["BLOCKS", "LARGEST", "SUFFIX", "dequantised", "quantised", "scale_shape"]

BLOCKS = (128, 128)
LARGEST = 448.0
"""The largest number of e4m3."""
SUFFIX = "_scale_inv"
"""A scale's name is its weight's and this."""
Blocks = tuple[int, int]


def scale_shape(shape: tuple[int, ...], blocks: Blocks = BLOCKS) -> tuple[int, int]:
    """Shape of the scales of a weight."""
    return math.ceil(shape[0] / blocks[0]), math.ceil(shape[1] / blocks[1])


def dequantised(stored: Tensor, scale: Tensor, blocks: Blocks = BLOCKS) -> Tensor:
    """Weights in float32 from what is stored; `scale` holds the scales of just these rows."""
    tiles = _tiles(_widened(stored), blocks)
    return _joined(tiles.mul_(scale.float()[:, None, :, None]), stored.shape)


def quantised(weight: Tensor, blocks: Blocks = BLOCKS) -> tuple[Tensor, Tensor]:
    """What is stored of a weight, and its scales in float32; a block of zeros has scale 1."""
    tiles = _tiles(weight.to(torch.float32, copy=True), blocks)
    most = torch.maximum(tiles.amax((1, 3)), -tiles.amin((1, 3)))
    scale = torch.where(most > 0, most / LARGEST, 1.0)
    stored = tiles.div_(scale[:, None, :, None]).to(torch.float8_e4m3fn)  # beyond 448 by rounding alone: 448
    return _joined(stored, weight.shape).contiguous(), scale


def _widened(stored: Tensor) -> Tensor:
    """All 256 numbers there are, looked up: on a CPU five times as fast as torch's conversion."""
    if stored.device.type != "cpu":
        return stored.float()
    numbers = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    return numbers.index_select(0, stored.contiguous().view(torch.uint8).flatten().int()).view(stored.shape)


def _tiles(weight: Tensor, blocks: Blocks) -> Tensor:
    """Cut into blocks, the last ones filled up with zeros: (row blocks, r, column blocks, c)."""
    rows, columns = weight.shape
    beyond = (0, -columns % blocks[1], 0, -rows % blocks[0])
    filled = functional.pad(weight, beyond) if any(beyond) else weight
    return filled.unflatten(1, (-1, blocks[1])).unflatten(0, (-1, blocks[0]))


def _joined(tiles: Tensor, shape: torch.Size) -> Tensor:
    return tiles.flatten(2, 3).flatten(0, 1)[: shape[0], : shape[1]]
