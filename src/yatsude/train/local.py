"""All of a model in one process: workers side by side, each with a replica of it on a share of the sequences."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from yatsude.checkpoint import state
from yatsude.checkpoint.hf import InMemory
from yatsude.checkpoint.write import Weights as Source
from yatsude.errors import CheckpointError, MachineError
from yatsude.files import refused
from yatsude.model.documents import Documents
from yatsude.model.loss import IGNORED, cross_entropy
from yatsude.model.router_stats import bias_ranges
from yatsude.model.scoring import Score
from yatsude.model.transformer import Transformer
from yatsude.train.ahead import shifted
from yatsude.train.balance import balance, penalise
from yatsude.train.candidates import Candidates, Drawn
from yatsude.train.feed import Batch
from yatsude.train.loop import Written
from yatsude.train.nonfinite import lost_weights, watched
from yatsude.train.optimizer import Optimizer
from yatsude.train.settings import LoopSettings
from yatsude.train.weights import Weights
from yatsude.train.workers import Workers

__all__ = ["Local"]

A = TypeVar("A")


class Local:
    """A `Trainer` on this machine alone. `candidates` make the loss a sampled one, else it is over all tokens."""

    leads = True

    def __init__(
        self,
        settings: LoopSettings,
        model: Transformer,
        *,
        dtype: torch.dtype,
        workers: Workers,
        candidates: Candidates | None = None,
    ) -> None:
        self.settings, self.workers, self.candidates = settings, workers, candidates
        self.weights = Weights(model, dtype, workers.count)
        self._written: Written | None = None
        self.optimizer = Optimizer(settings.optimizer, self.weights)
        penalise(
            self.weights.replicas,
            sequence=settings.sequence_balance,
            z=settings.router_z,
            sequences=settings.sequences_per_step,
        )

    def score(self, evaluate: Callable[[Transformer], Score]) -> Score:
        """Score a replica; what its routers count meanwhile is forgotten."""
        found = evaluate(self._model)
        for router in self._model.routers:
            router.load.zero_()
        return found

    @property
    def _model(self) -> Transformer:
        return self.weights.replicas[0]

    def rows(self, count: int) -> slice:
        """All of a step's sequences."""
        return slice(0, count)

    def gradient(self, batch: Batch, step: int) -> float:
        """Let each worker add the gradient of its rows; the mean loss over the counted tokens, in nats, comes back."""
        scale = 1.0 / max(int((batch.targets != IGNORED).sum()), 1)
        rows = (batch.inputs, batch.targets, batch.documents)
        shares = zip(*(torch.from_numpy(a).tensor_split(self.workers.count) for a in rows), strict=True)
        parts = zip(self.weights.replicas, shares, strict=True)
        drawn = self.candidates.draw(step, batch.targets) if self.candidates else None
        return math.fsum(self.workers.map(lambda part: self._backward(part[0], part[1], scale, drawn), parts))

    def norm(self) -> float:
        """Collect the gradient; its length."""
        return math.sqrt(math.fsum(self.workers.map(self.weights.collect, self.weights.shares)))

    def update(self, rate_share: float, norm: float) -> None:
        """Clip, and move the weights."""
        self.optimizer.step(rate_share, norm, self.workers)

    def balance(self) -> Tensor:
        """Move the routers' biases; the loads, (mixture layers, E)."""
        return balance(self.weights.replicas, self.settings.balance_rate)

    def bias_ranges(self) -> Sequence[float | None]:
        """From the least to the greatest bias of each mixture layer."""
        return bias_ranges(self._model.routers)

    def forget(self) -> None:
        """Drop the gradient, and the counts of the routers."""
        self.workers.map(self.weights.collect, self.weights.shares)
        for replica in self.weights.replicas:
            for router in replica.routers:
                router.load.zero_()

    def trace(self, batch: Batch, step: int) -> str:
        """Where in a step something is no number first; the step is done again, and forgotten."""
        found = list(lost_weights(self._model.named_parameters()))
        with contextlib.ExitStack() as stack:
            for replica in self.weights.replicas:
                stack.enter_context(watched(replica, found))
            self.gradient(batch, step)
        self.forget()
        return f"first in {min(found).what}" if found else "and not when the step is done again"

    def notes(self) -> list[dict[str, Any]]:
        """Nothing happens here beside the steps."""
        return []

    def agree(self, stop: bool) -> bool:
        """Whether anybody wants to stop."""
        return stop

    def shared(self, value: A) -> A:
        """The value: this process leads."""
        return value

    def source(self) -> Source:
        """The weights at full precision."""
        return InMemory(self.weights.full())

    def save(self, place: Path, page: Mapping[str, Any]) -> None:
        """Write a state; training waits, as a copy of it all would take more memory than the machine may have."""
        error = ""
        try:
            state.save(place, {**self._named(), **self._biases()}, page)
        except (OSError, MachineError) as problem:
            error = refused(problem)
        self._written = Written(place, error)

    def saved(self, wait: bool) -> Written | None:
        """What became of the last state, once."""
        written, self._written = self._written, None
        return written

    def latest(self, checkpoints: Path) -> tuple[Any, dict[str, Any]] | None:
        """Find the newest good state: what `restore` takes, and its page."""
        return state.latest(checkpoints)

    def restore(self, found: Mapping[str, Tensor], steps: int) -> None:
        """Go on from a state that was written after `steps` steps."""
        for name, here in {**self._named(), **self._biases()}.items():
            if name not in found or found[name].shape != here.shape:
                has = f"{name} of shape {tuple(found[name].shape)}" if name in found else f"no {name}"
                raise CheckpointError(
                    f"the state is one of another model: it has {has}, expected shape {tuple(here.shape)}; give another"
                    " --run, or --restart"
                )
            here.copy_(found[name])
        self.weights.publish(self.weights.slices)
        self.optimizer.steps = steps

    def _backward(
        self, model: Transformer, rows: tuple[Tensor, Tensor, Tensor], scale: float, drawn: Drawn | None
    ) -> float:
        """Add the gradient of some rows; the share of the main loss comes back, without auxiliary ones."""
        inputs, targets, documents = rows
        if not len(inputs):
            return 0.0
        mask = Documents(documents) if self.settings.separate_documents else None
        hidden = model(inputs, mask=mask)
        loss = total = self._loss(model, hidden, targets, scale, drawn)
        for number in range(len(model.mtp)):
            following, later = shifted(inputs, targets, documents, number + 1)
            hidden = model.ahead(number, hidden, following, mask=mask)
            weight = self.settings.mtp_weight / len(model.mtp)
            total = total + self._loss(model, hidden, later, scale * weight, drawn)
        total.backward()
        return loss.item()

    def _loss(self, model: Transformer, hidden: Tensor, targets: Tensor, scale: float, drawn: Drawn | None) -> Tensor:
        head, targets, offsets = model.lm_head.weight, targets.flatten(), None
        if drawn:
            head, targets, offsets = head[drawn.tokens_C], drawn.places(targets), drawn.offsets_C.to(head.dtype)
        return cross_entropy(hidden.flatten(0, 1), head, targets, scale, offsets)

    def _biases(self) -> dict[str, Tensor]:
        """The routers' biases: no parameters, but part of the state."""
        return {
            name: buffer for name, buffer in self._model.named_buffers() if name.endswith("e_score_correction_bias")
        }

    def _named(self) -> dict[str, Tensor]:
        """Weights by name, and what the optimizer has beside them, as the ranks of a job write them too."""
        found = self.weights.named(self.weights.master)
        for word, part, flat in self.optimizer.moments():
            found |= {f"{word}.{name}": view for name, view in zip(part.names, part.of(flat), strict=True)}
        return found
