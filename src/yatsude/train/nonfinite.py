"""Where numbers stop being numbers: a step is done again with eyes on every module.

What is found is ordered as a signal passes through the model, forward and then backward, whichever rank has the module
and whatever its clock says: so the first of all ranks is where it began, and what others got from there comes later.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LAST", "Find", "lost_weights", "watched"]

LAST = 1 << 30
"""More than any layer's number."""


@dataclasses.dataclass(frozen=True, order=True)
class Find:
    """Something that is no number: the earlier in a step, the smaller.

    `phase` is 0 for weights, 1 for the forward and 2 for the backward pass; `place` the module's, by layer and within.
    """

    phase: int
    place: tuple[int, ...]
    what: str = dataclasses.field(compare=False)


@contextlib.contextmanager
def watched(model: nn.Module, found: list[Find]) -> Iterator[None]:
    """Add to `found` what is no number in a model (its names begin where the layers lie) while the block runs."""
    handles: list[Any] = []
    for within, (name, module) in enumerate(_in_order(model)):
        eye = _Eye(name, module, (_layer(name), within), found, handles)
        # the head is no call of its own: the loss takes its weight, after the last norm
        asked = model.get_submodule("norm") if name == "lm_head" else module
        handles.append(asked.register_forward_pre_hook(eye.before))
        handles.append(module.register_forward_hook(eye.after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def lost_weights(weights: Iterable[tuple[str, Tensor]]) -> Iterator[Find]:
    """Weights, by name, that are no numbers."""
    for name, weight in weights:
        if not bool(torch.isfinite(weight).all()):
            yield Find(0, (), f"weight {name}")


class _Eye:
    """Looks at one module."""

    def __init__(
        self, name: str, module: nn.Module, place: tuple[int, int], found: list[Find], handles: list[Any]
    ) -> None:
        self.name, self.module, self.place, self.found, self.handles = name, module, place, found, handles
        self._seen: set[int] = set()

    def before(self, _module: nn.Module, _inputs: object) -> None:
        """Watch the gradients of its own weights, before they are summed up with those of others."""
        back = (-self.place[0], -self.place[1], 1)
        for name, weight in self.module._parameters.items():
            if weight is not None and weight.requires_grad and id(weight) not in self._seen:
                self._seen.add(id(weight))
                self._hook(weight, back, f"gradient of {self.name}.{name}")

    def after(self, _module: nn.Module, _inputs: object, output: object) -> None:
        """Look at what comes out, and watch the gradient that comes back to it."""
        for tensor in output if isinstance(output, tuple) else (output,):
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                continue
            self._look(tensor, 1, self.place, self.name)
            if tensor.requires_grad:
                self._hook(tensor, (-self.place[0], -self.place[1], 0), f"gradient of {self.name}")

    def _hook(self, tensor: Tensor, place: tuple[int, ...], what: str) -> None:
        def look(gradient: Tensor) -> None:
            self._look(gradient, 2, place, what)

        self.handles.append(tensor.register_hook(look))

    def _look(self, tensor: Tensor, phase: int, place: tuple[int, ...], what: str) -> None:
        if not bool(torch.isfinite(tensor.detach()).all()):
            self.found.append(Find(phase, place, what))


def _in_order(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """All modules by name, each after those in it: as their results come."""
    for child, module in model.named_children():
        yield from _in_order(module, f"{name}.{child}" if name else child)
    if name:
        yield name, model


def _layer(name: str) -> int:
    """Number of the layer that a module is in: the embedding is 0, norm, head and what follows come after all."""
    match = re.match(r"layers\.(\d+)", name)
    if match:
        return int(match[1]) + 1
    return 0 if name.startswith(("embed_tokens", "rotary")) else LAST
