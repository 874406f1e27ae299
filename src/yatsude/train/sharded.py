"""The optimizer of a job whose weights lie on many ranks: the same updates as in one process.

AdamW looks at each number by itself, so every rank updates what it has. Muon looks at whole matrices: those of experts
are whole on their rank, the others are joined for the update, of which each rank keeps its part.
"""

import dataclasses
from collections.abc import Callable

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
    second: Tensor


class ShardedOptimizer:
    """Updates the weights of one rank of a job."""

    def __init__(self, settings: OptimizerSettings, job: Job) -> None:
        self.settings, self.job, self.steps = settings, job, 0
        self.entries = [
            _Entry(name, kind_of(name, weight), weight, *(torch.zeros_like(local(weight.detach())) for _ in range(2)))
            for name, weight in job.parameters()
        ]

    @property
    def moments(self) -> dict[str, Callable[[nn.Parameter], Tensor]]:
        """What a checkpoint keeps beside each weight, by name."""
        found = {entry.weight: entry for entry in self.entries}
        return {"first": lambda weight: found[weight].first, "second": lambda weight: found[weight].second}

    def step(self, rate_share: float, norm: float) -> None:
        """Clip the gradient, whose length is `norm`, update, and clear it; `rate_share` scales the rates."""
        self.steps += 1
        self.job.scale(min(1.0, self.settings.clip / max(norm, 1e-12)))
        with torch.no_grad():
            for entry in self.entries:
                if entry.kind == "matrix" and self.settings.muon:
                    self._muon(entry, rate_share * self.settings.muon_rate)
                else:
                    self._adamw(entry, rate_share * rate_of(self.settings, entry.kind))
                entry.weight.grad = None

    def _adamw(self, entry: _Entry, rate: float) -> None:
        settings, gradient = self.settings, entry.weight.grad
        assert gradient is not None, "every weight took part in the step"
        torch._fused_adamw_(
            [local(entry.weight.detach())],
            [local(gradient)],
            [entry.first],
            [entry.second],
            [],
            [torch.tensor(float(self.steps))],
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
        entry.first.lerp_(gradient, 1 - self.settings.momentum)
        update = self.job.whole(entry.weight, gradient.lerp(entry.first, self.settings.momentum))
        update = self.job.mine(entry.weight, even(update, entry.name))
        master.mul_(1 - rate * self.settings.weight_decay)
        master.add_(update, alpha=-rate)
