"""Training in one process: feed, gradient, update, balance, and a state that the same command resumes.

A run's folder holds `log.jsonl` (every step, every score) and `checkpoints/` (states to resume from).
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yatsude.checkpoint import state
from yatsude.errors import CheckpointError
from yatsude.model.documents import Documents
from yatsude.model.loss import IGNORED, cross_entropy
from yatsude.model.router_stats import bias_ranges
from yatsude.model.scoring import Score
from yatsude.model.transformer import Transformer
from yatsude.progress import bar, say
from yatsude.train.ahead import shifted
from yatsude.train.balance import balance, penalise
from yatsude.train.candidates import Candidates, Drawn
from yatsude.train.feed import Batch, Source
from yatsude.train.guard import Guard
from yatsude.train.monitor import Monitor
from yatsude.train.optimizer import Optimizer
from yatsude.train.schedule import share
from yatsude.train.settings import LoopSettings
from yatsude.train.stopping import asked_to_stop
from yatsude.train.weights import Weights
from yatsude.train.workers import Workers

__all__ = ["Loop"]


class Loop:
    """One run over a source of samples: pre-training and fine-tuning both are this.

    It goes on from the newest state in `folder`, if there is one.
    `identity` names everything that the result depends on; a state of another identity is not resumed.
    `candidates` make the loss a sampled one; without them it goes over the whole vocabulary.
    """

    def __init__(
        self,
        settings: LoopSettings,
        model: Transformer,
        source: Source,
        folder: Path,
        *,
        dtype: torch.dtype,
        workers: Workers,
        evaluate: Callable[[Transformer], Score],
        identity: str,
        candidates: Candidates | None = None,
    ) -> None:
        self.settings, self.source, self.folder, self.candidates = settings, source, folder, candidates
        self.workers, self.evaluate, self.identity = workers, evaluate, identity
        self.weights = Weights(model, dtype, workers.count)
        self.optimizer = Optimizer(settings.optimizer, self.weights)
        penalise(
            self.weights.replicas,
            sequence=settings.sequence_balance,
            z=settings.router_z,
            sequences=settings.sequences_per_step,
        )
        self.guard = Guard(settings.table)
        self.step = 0
        self.seconds = 0.0
        self.score: Score | None = None
        self._restore()

    def run(self) -> Transformer:
        """Train to the last step; the model in float32 comes back."""
        monitor = Monitor(self.folder / "log.jsonl", self.step)
        steps, tokens = self.settings.steps, self.settings.sequences_per_step * self.settings.sequence_length
        try:
            with bar(self.settings.title, steps * tokens, "tokens") as progress, asked_to_stop() as stop:
                progress.skip(self.step * tokens)
                while self.step < steps:
                    figures, loads = self.advance()
                    progress.advance(tokens, f"loss {self.guard.smooth:.3f}")
                    monitor.step(figures, loads, bias_ranges(self.weights.replicas[0].routers))
                    if self._due(self.settings.evaluations):
                        self._evaluate(monitor, figures)
                    if stop.is_set():
                        here = f"step {self.step:,} of {steps:,}" if self._save() else "the last good checkpoint"
                        raise KeyboardInterrupt(f"stopped at {here}")
                    if self.step % self.settings.checkpoint_steps == 0 or self.step == steps:
                        self._save()
        finally:
            monitor.close()
        self.guard.end()
        return self.weights.full()

    def advance(self) -> tuple[dict[str, Any], Tensor]:
        """One step: the figures for the log, and the loads of the experts."""
        start = time.perf_counter()
        count = self.settings.sequences_per_step
        loss = self._gradient(self.source.batch(self.step * count, count))
        norm = math.sqrt(math.fsum(self.workers.map(self.weights.collect, self.weights.shares)))
        self.guard.watch(self.step + 1, loss, norm)
        rate_share = share((self.step + 0.5) / self.settings.steps, self.settings.warmup, self.settings.decay)
        self.optimizer.step(rate_share, norm, self.workers)
        loads = balance(self.weights.replicas, self.settings.balance_rate)
        self.step += 1
        self.seconds += time.perf_counter() - start
        figures = {
            "step": self.step,
            "loss": loss,
            "gradient_norm": norm,
            "rate_share": rate_share,
            "tokens": self.step * count * self.settings.sequence_length,
            "seconds": round(self.seconds, 3),
        }
        return figures, loads

    def _gradient(self, batch: Batch) -> float:
        """Let each worker add the gradient of its rows; the mean loss over the counted tokens, in nats, comes back."""
        scale = 1.0 / max(int((batch.targets != IGNORED).sum()), 1)
        rows = (batch.inputs, batch.targets, batch.documents)
        shares = zip(*(torch.from_numpy(a).tensor_split(self.workers.count) for a in rows), strict=True)
        parts = zip(self.weights.replicas, shares, strict=True)
        drawn = self.candidates.draw(self.step, batch.targets) if self.candidates else None
        return math.fsum(self.workers.map(lambda part: self._backward(part[0], part[1], scale, drawn), parts))

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

    def _due(self, times: int) -> bool:
        """Whether one of `times` moments, spread evenly and the last at the end, has just come."""
        steps = self.settings.steps
        return times > 0 and self.step * times // steps > (self.step - 1) * times // steps

    def _evaluate(self, monitor: Monitor, figures: dict[str, Any]) -> None:
        self.score = self.evaluate(self.weights.replicas[0])
        for router in self.weights.replicas[0].routers:
            router.load.zero_()
        monitor.evaluation({**figures, "bits_per_character": self.score.bits_per_character}, self.settings.steps)

    def _save(self) -> bool:
        """Write a checkpoint, unless the loss is climbing; whether it was written."""
        if not self.guard.good:
            say(f"step {self.step}: the loss is climbing, no checkpoint is written")
            return False
        tensors = {"master": self.weights.master, **self.optimizer.tensors(), **self._biases()}
        page = {
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "guard": self.guard.state(),
            "score": None if self.score is None else dataclasses.asdict(self.score),
        }
        place = state.step_folder(self.folder / "checkpoints", self.step)
        state.save(place, tensors, page)
        state.prune(place, self.settings.keep_checkpoints)
        return True

    def _biases(self) -> dict[str, Tensor]:
        """The routers' biases: no parameters, but part of the state."""
        biases = [router.e_score_correction_bias for router in self.weights.replicas[0].routers]
        return {f"router_bias.{i}": bias for i, bias in enumerate(biases) if bias is not None}

    def _restore(self) -> None:
        found = state.latest(self.folder / "checkpoints")
        if found is None:
            return
        tensors, page = found
        if page["identity"] != self.identity:
            raise CheckpointError(
                f"{self.folder} holds a run with other settings or other text; give another --run, or --restart"
                f" (of 'yatsude {self.settings.table}', for this stage alone)"
            )
        self.weights.master.copy_(tensors["master"])
        self.weights.publish(self.weights.slices)
        self.optimizer.restore(tensors, page["step"])
        for name, bias in self._biases().items():
            bias.copy_(tensors[name])
        self.step, self.seconds = page["step"], page["seconds"]
        self.guard.restore(page["guard"])
        self.score = Score(**page["score"]) if page["score"] else None
        say(f"resuming {self.folder} at step {self.step:,} of {self.settings.steps:,}")
