"""Activations that the backward pass computes again instead of keeping them (Chen et al. 2016, arXiv 1604.06174)."""

import functools
from typing import Any, Self

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from yatsude.model.block import Block
from yatsude.model.router import Router
from yatsude.spec.parallel import Recompute

__all__ = ["recompute"]


def recompute(block: Block, how: Recompute) -> None:
    """Let a layer keep its input alone ("full"), or its attention only what goes into it ("selective")."""
    if how != "none":
        _again(block if how == "full" else block.self_attn)


def _again(part: nn.Module) -> None:
    """Compute a part again when its gradient is taken."""
    forward = part.forward
    routers = [module for module in part.modules() if isinstance(module, Router)]
    contexts = functools.partial(_contexts, routers)
    part.forward = lambda *args: checkpoint(forward, *args, use_reentrant=False, context_fn=contexts)


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
