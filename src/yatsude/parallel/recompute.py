"""Activations that the backward pass computes again instead of keeping them (Chen et al. 2016, arXiv 1604.06174)."""

import functools
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from yatsude.model.block import Block
from yatsude.model.router import Router
from yatsude.spec.parallel import Recompute

__all__ = ["recompute"]


def recompute(block: Block, how: Recompute, split: bool) -> None:
    """Let a layer keep its input alone ("full"), or its attention only what goes into it ("selective").

    With `split` the gradients of inputs and those of weights are taken apart, by many backward passes over a graph.
    """
    if how != "none":
        part = block if how == "full" else block.self_attn
        routers = [module for module in part.modules() if isinstance(module, Router)]
        (_once if split else _again)(part, routers)


def _again(part: nn.Module, routers: list[Router]) -> None:
    """Compute a part again in the backward pass; what was computed goes piece by piece."""
    forward, contexts = part.forward, functools.partial(_contexts, routers)
    part.forward = lambda *args: checkpoint(forward, *args, use_reentrant=False, context_fn=contexts)


def _once(part: nn.Module, routers: list[Router]) -> None:
    """Compute a part again in the first of several backward passes, and keep it for the others.

    PyTorch's own would compute it again in every one, and takes the gradients of weights by many.
    """
    forward = part.forward

    def first(*args: Any) -> Tensor:
        saved = _Saved(forward, args, routers)
        with saved_tensors_hooks(saved.number, saved.find):
            return forward(*args)

    part.forward = first


class _Saved:
    """The tensors that a forward pass saves for its gradient; they live as long as its graph."""

    def __init__(self, forward: Callable[..., Tensor], args: tuple[Any, ...], routers: list[Router]) -> None:
        self._forward, self._args, self._routers = forward, args, routers
        self._count, self._found = 0, list[Tensor]()

    def number(self, _: Tensor) -> int:
        """Count a tensor that is saved."""
        self._count += 1
        return self._count - 1

    def find(self, number: int) -> Tensor:
        """A tensor by its number, from a second computation."""
        if not self._found:
            args = (a.detach().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in self._args)
            with torch.enable_grad(), _Uncounted(self._routers), saved_tensors_hooks(self._keep, _never):
                self._forward(*args)
            assert len(self._found) == self._count, "computed as the first time"
        return self._found[number]

    def _keep(self, tensor: Tensor) -> None:
        self._found.append(tensor.detach())


def _never(_: None) -> Tensor:
    raise AssertionError("no gradient is taken of the second computation")


def _contexts(routers: list[Router]) -> tuple[Any, Any]:
    """What surrounds the first computation, and the second one."""
    return _Uncounted([]), _Uncounted(routers)


class _Uncounted:
    """Routers count tokens once, and not again when they are computed again. May be entered many times."""

    def __init__(self, routers: list[Router]) -> None:
        self.routers = routers
        self.loads: list[Tensor] = []

    def __enter__(self) -> Self:
        self.loads = [router.load.clone() for router in self.routers]
        return self

    def __exit__(self, *_: object) -> None:
        for router, load in zip(self.routers, self.loads, strict=True):
            router.load.copy_(load)
