"""The gated feed-forward layer: down(silu(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from yatsude.model.native import library

__all__ = ["SwiGLU", "swiglu"]


class SwiGLU(nn.Module):
    """A dense feed-forward layer: also the shared expert, which every token passes."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, shape (..., D), to the same shape."""
        return self.down_proj(swiglu(self.gate_up_proj(x)))


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up for gate and up side by side: shape (..., 2I) to (..., I)."""
    if torch.is_grad_enabled() and gate_up.requires_grad:
        function = _Compiled if library.usable(gate_up) else _SwiGLU
        return function.apply(gate_up)
    gate, up = gate_up.chunk(2, -1)
    return functional.silu(gate) * up


class _SwiGLU(torch.autograd.Function):
    """The same with a backward that writes both halves in place: autograd would join them by a copy."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        opened = functional.silu(gate)
        ctx.save_for_backward(gate_up, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        gate_up, opened = ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        grad = torch.empty_like(gate_up)
        grad_gate, grad_up = grad.chunk(2, -1)
        torch.mul(grads[0], opened, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=grad_gate)
        return grad


class _Compiled(torch.autograd.Function):
    """The same in one pass each way, which keeps nothing but its input."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        y = gate_up.new_empty(*gate_up.shape[:-1], gate_up.shape[-1] // 2)
        library.call("swiglu_forward", gate_up, y, *_rows(y))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        grad, grad_gate_up = grads[0].contiguous(), torch.empty_like(gate_up)
        library.call("swiglu_backward", grad, gate_up, grad_gate_up, *_rows(grad))
        return grad_gate_up


def _rows(x: Tensor) -> tuple[int, int]:
    """Number of rows, and their width."""
    return x.numel() // max(x.shape[-1], 1), x.shape[-1]
