"""What layers of multi-token prediction are given and asked: the same rows, shifted.

Shapes: B rows, T tokens.
"""

import torch
from torch import Tensor

from yatsude.model.loss import IGNORED

__all__ = ["shifted"]


def shifted(inputs_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Tokens that come `by` after each, and the targets of those; what lies beyond a row or document is ignored.

    >>> shifted(torch.tensor([[5, 6, 7]]), torch.tensor([[6, 7, 8]]), torch.tensor([[1, 1, 1]]), 1)
    (tensor([[6, 7, 7]]), tensor([[   7,    8, -100]]))
    """
    place = torch.arange(inputs_BT.shape[1], device=inputs_BT.device)
    later = (place + by).clamp_max(inputs_BT.shape[1] - 1)
    known = (place + by < inputs_BT.shape[1]) & (documents_BT[:, later] == documents_BT)
    return inputs_BT[:, later], targets_BT[:, later].masked_fill(~known, IGNORED)
