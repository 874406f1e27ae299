"""The optimizer of a job whose weights lie on many ranks: the same updates as in one process.

AdamW looks at each number by itself, so every rank updates what it has. Muon looks at whole matrices: those of experts
are whole on their rank, the others are joined for the update, of which each rank keeps its part.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from yatsude.parallel.job import Job, local
from yatsude.train.optimizer import decay_of, even, rate_of
from yatsude.train.settings import OptimizerSettings
from yatsude.train.weights import kind_of

__all__ = ["ShardedOptimizer"]


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A weight, and what is remembered of its gradients."""

    name: str
    kind: str
    weight: nn.Parameter
    first: Tensor
    second: Tensor | None
    """Muon has none."""


class ShardedOptimizer:
    """Updates the weights of one rank of a job."""

    def __init__(self, settings: OptimizerSettings, job: Job) -> None:
        self.settings, self.job, self.steps = settings, job, 0
        self.entries = [self._entry(name, weight) for name, weight in job.parameters()]

    @property
    def moments(self) -> dict[str, Callable[[nn.Parameter], Tensor | None]]:
        """What a checkpoint keeps beside each weight, by name."""
        found = {entry.weight: entry for entry in self.entries}
        return {"first": lambda weight: found[weight].first, "second": lambda weight: found[weight].second}

    def step(self, rate_share: float, norm: float) -> None:
        """Clip the gradient, whose length is `norm`, update, and clear it; `rate_share` scales the rates."""
        self.steps += 1
        self.job.scale(min(1.0, self.settings.clip / max(norm, 1e-12)))
        with torch.no_grad():
            for entry in self.entries:
                if entry.second is None:
                    self._muon(entry, rate_share * self.settings.muon_rate)
                else:
                    self._adamw(entry, rate_share * rate_of(self.settings, entry.kind))
                entry.weight.grad = None

    def _entry(self, name: str, weight: nn.Parameter) -> _Entry:
        kind, here = kind_of(name, weight), local(weight.detach())
        dtype = torch.bfloat16 if self.settings.states == "bf16" else here.dtype
        muon = kind == "matrix" and self.settings.muon
        first, second = torch.zeros_like(here, dtype=dtype), None if muon else torch.zeros_like(here, dtype=dtype)
        return _Entry(name, kind, weight, first, second)

    def _adamw(self, entry: _Entry, rate: float) -> None:
        settings, gradient, master = self.settings, entry.weight.grad, local(entry.weight.detach())
        assert gradient is not None, "every weight took part in the step"
        assert entry.second is not None, "only Muon has none"
        with _as_wide(entry.first, master) as first, _as_wide(entry.second, master) as second:
            torch._fused_adamw_(
                [master],
                [local(gradient)],
                [first],
                [second],
                [],
                [torch.tensor(float(self.steps), device=master.device)],
                lr=rate,
                beta1=settings.beta1,
                beta2=settings.beta2,
                weight_decay=decay_of(settings, entry.kind),
                eps=settings.epsilon,
                amsgrad=False,
                maximize=False,
            )

    def _muon(self, entry: _Entry, rate: float) -> None:
        assert entry.weight.grad is not None, "every weight took part in the step"
        gradient, master = local(entry.weight.grad), local(entry.weight.detach())
        with _as_wide(entry.first, master) as first:
            first.lerp_(gradient, 1 - self.settings.momentum)
            update = self.job.whole(entry.weight, gradient.lerp(first, self.settings.momentum))
        update = self.job.mine(entry.weight, even(update, entry.name))
        master.mul_(1 - rate * self.settings.weight_decay)
        master.add_(update, alpha=-rate)


@contextlib.contextmanager
def _as_wide(moment: Tensor, like: Tensor) -> Iterator[Tensor]:
    """A moment in the precision of the weights while it is changed."""
    wide = moment.to(like.dtype)
    yield wide
    if wide is not moment:
        moment.copy_(wide)
