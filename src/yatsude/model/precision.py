"""Where a model computes wider than its weights: norms, the router, softmax."""

import torch
from torch import Tensor

__all__ = ["wide"]


def wide(x: Tensor) -> Tensor:
    """Return `x` in at least float32: bf16 and fp16 are widened, float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
