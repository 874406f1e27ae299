"""Cross-entropy without holding all logits: head and loss, chunk by chunk.

Shapes: N tokens, D hidden width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from yatsude.model import precision
from yatsude.model.native import library

__all__ = ["IGNORED", "cross_entropy", "token_losses"]

IGNORED = -100
"""A target that is not counted."""
CHUNK = 512
"""Tokens whose logits live at the same time. Fewer make slower products (128: by a sixth), more only take memory."""


def cross_entropy(
    hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, scale: float, offsets_V: Tensor | None = None
) -> Tensor:
    """Sum of the tokens' cross-entropies (nats) times `scale`, differentiable in `hidden_ND` and `head_VD`.

    Give `scale` = 1 / number of counted tokens of the whole step to make it a mean. `offsets_V` are added to a token's
    logits, but not to its target's: -log of the chance to be there, where the V tokens are a sample of more.
    """
    given = (hidden_ND, head_VD) if offsets_V is None else (hidden_ND, head_VD, offsets_V)
    function = _Compiled if len(hidden_ND) and library.usable(*given) else _CrossEntropy
    return function.apply(hidden_ND, head_VD, targets_N, scale, offsets_V)


@torch.no_grad()
def token_losses(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Cross-entropy of each token in nats, float32, shape (N,); ignored targets give 0."""
    parts = [
        functional.cross_entropy(
            functional.linear(hidden, head_VD).float(), targets, reduction="none", ignore_index=IGNORED
        )
        for hidden, targets in zip(hidden_ND.split(CHUNK), targets_N.split(CHUNK), strict=True)
    ]
    return torch.cat(parts)


class _CrossEntropy(torch.autograd.Function):
    """Gradients are made on the way forward, so each chunk's logits live once and only here."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, scale: float, offsets_V: Tensor | None
    ) -> Tensor:
        total = torch.zeros((), dtype=precision.wide(hidden_ND[:0]).dtype, device=hidden_ND.device)
        grad_hidden = torch.empty_like(hidden_ND)
        grad_head = torch.zeros_like(head_VD)
        for start in range(0, len(hidden_ND), CHUNK):
            part = slice(start, start + CHUNK)
            hidden, targets = hidden_ND[part], targets_N[part]
            counted = targets != IGNORED
            own = torch.arange(len(targets), device=targets.device), targets.clamp_min(0)
            logits = functional.linear(hidden, head_VD, offsets_V)
            if offsets_V is not None:
                logits[own] -= offsets_V[own[1]]
            probabilities = torch.softmax(logits, -1)
            loss = precision.wide(probabilities[own]).clamp_min(1e-30).log()
            total -= (loss * counted).sum() * scale
            probabilities[own] -= 1  # from here on the gradient of the logits
            factors = counted[:, None].to(hidden.dtype) * scale
            torch.mm(probabilities, head_VD, out=grad_hidden[part]).mul_(factors)
            grad_head.addmm_(probabilities.T, hidden * factors)
        ctx.save_for_backward(grad_hidden, grad_head)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        if grads[0].item() != 1.0:
            grad_hidden, grad_head = grad_hidden * grads[0].to(grad_hidden), grad_head * grads[0].to(grad_head)
        return grad_hidden, grad_head, None, None, None


class _Compiled(_CrossEntropy):
    """The same with one buffer for the logits of all chunks, which become their gradient in place."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, scale: float, offsets_V: Tensor | None
    ) -> Tensor:
        total = 0.0
        if int(targets_N.max()) >= len(head_VD):  # the pass below does not look
            raise IndexError(f"target {int(targets_N.max())} is out of bounds: the head has {len(head_VD)} rows")
        hidden_ND, targets_N = hidden_ND.contiguous(), targets_N.contiguous()
        grad_hidden, grad_head = torch.empty_like(hidden_ND), torch.empty_like(head_VD)
        buffer = hidden_ND.new_empty(min(CHUNK, len(hidden_ND)), len(head_VD))
        for start in range(0, len(hidden_ND), CHUNK):
            part = slice(start, start + CHUNK)
            hidden, targets = hidden_ND[part], targets_N[part]
            logits = torch.mm(hidden, head_VD.T, out=buffer[: len(targets)])
            total += library.call("cross_entropy", logits, targets, offsets_V, *logits.shape, scale)
            torch.mm(logits, head_VD, out=grad_hidden[part])
            grad_head.addmm_(logits.T, hidden, beta=1 if start else 0)
        ctx.save_for_backward(grad_hidden, grad_head)
        return torch.tensor(total * scale)
