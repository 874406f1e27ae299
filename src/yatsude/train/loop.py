"""Training: feed, gradient, update, balance, and a state that the same command resumes.

A run's folder holds `log.jsonl` (every step, every score) and `checkpoints/` (states to resume from).
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from yatsude.checkpoint import state
from yatsude.checkpoint.write import Weights
from yatsude.errors import CheckpointError
from yatsude.model.scoring import Score
from yatsude.model.transformer import Transformer
from yatsude.progress import say
from yatsude.train.feed import Batch, Source
from yatsude.train.guard import Guard
from yatsude.train.monitor import Monitor, Silent
from yatsude.train.schedule import share
from yatsude.train.settings import LoopSettings
from yatsude.train.stopping import asked_to_stop
from yatsude.train.watch import Watch

__all__ = ["Loop", "Trainer"]


class Trainer(Protocol):
    """What holds the weights and moves them: one process, or the ranks of a job."""

    @property
    def leads(self) -> bool:
        """Whether this process tells what happens."""
        ...

    def score(self, evaluate: Callable[[Transformer], Score]) -> Score:
        """Score the model as it is."""
        ...

    def gradient(self, batch: Batch, step: int) -> float:
        """Take the gradient of a whole step; the mean loss over the counted tokens, in nats."""
        ...

    def norm(self) -> float:
        """Length of the gradient."""
        ...

    def update(self, rate_share: float, norm: float) -> None:
        """Clip the gradient, move the weights, forget it."""
        ...

    def balance(self) -> Tensor:
        """Move the routers' biases against the loads, which come back: tokens an expert, (mixture layers, E)."""
        ...

    def bias_ranges(self) -> Sequence[float | None]:
        """From the least to the greatest bias of each mixture layer."""
        ...

    def agree(self, stop: bool) -> bool:
        """Whether anybody wants to stop."""
        ...

    def source(self) -> Weights:
        """The weights at full precision, to be written."""
        ...

    def save(self, place: Path, page: Mapping[str, Any]) -> None:
        """Write a state."""
        ...

    def latest(self, checkpoints: Path) -> tuple[Any, dict[str, Any]] | None:
        """Find the newest good state: what `restore` takes, and its page."""
        ...

    def restore(self, found: Any, steps: int) -> None:
        """Go on from a state that was written after `steps` steps."""
        ...


class Loop:
    """One run over a source of samples: pre-training and fine-tuning both are this.

    It goes on from the newest state in `folder`, if there is one.
    `identity` names everything that the result depends on; a state of another identity is not resumed.
    """

    def __init__(
        self,
        settings: LoopSettings,
        trainer: Trainer,
        source: Source,
        folder: Path,
        *,
        evaluate: Callable[[Transformer], Score],
        identity: str,
    ) -> None:
        self.settings, self.trainer, self.source, self.folder = settings, trainer, source, folder
        self.evaluate, self.identity, self.watch = evaluate, identity, Watch()
        self.guard = Guard(settings.table)
        self.step = 0
        self.seconds = 0.0
        self.score: Score | None = None
        self._restore()

    def run(self) -> Weights:
        """Train to the last step; the weights in float32 come back."""
        leads = self.trainer.leads
        monitor = Monitor(self.folder / "log.jsonl", self.step, self.watch.hear) if leads else Silent()
        steps, tokens = self.settings.steps, self.settings.sequences_per_step * self.settings.sequence_length
        try:
            shown = self.watch.shown(self.settings, self.folder, self.step, leads)
            with shown as progress, asked_to_stop() as stop:
                progress.skip(self.step * tokens)
                while self.step < steps:
                    figures, loads = self.watch.timed(self.advance)
                    progress.advance(tokens, f"loss {self.guard.smooth:.3f}")
                    monitor.step(figures, loads, self.trainer.bias_ranges())
                    if self._due(self.settings.evaluations):
                        self._evaluate(monitor, figures)
                    if self.trainer.agree(stop.is_set()):
                        here = f"step {self.step:,} of {steps:,}" if self._save() else "the last good checkpoint"
                        raise KeyboardInterrupt(f"stopped at {here}")
                    if self.step % self.settings.checkpoint_steps == 0 or self.step == steps:
                        self._save()
        finally:
            monitor.close()
        self.guard.end()
        return self.trainer.source()

    def advance(self) -> tuple[dict[str, Any], Tensor]:
        """One step: the figures for the log, and the loads of the experts."""
        start = time.perf_counter()
        count = self.settings.sequences_per_step
        loss = self.trainer.gradient(self.source.batch(self.step * count, count), self.step)
        norm = self.trainer.norm()
        self.guard.watch(self.step + 1, loss, norm)
        rate_share = share((self.step + 0.5) / self.settings.steps, self.settings.warmup, self.settings.decay)
        self.trainer.update(rate_share, norm)
        loads = self.trainer.balance()
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

    def _due(self, times: int) -> bool:
        """Whether one of `times` moments, spread evenly and the last at the end, has just come."""
        steps = self.settings.steps
        return times > 0 and self.step * times // steps > (self.step - 1) * times // steps

    def _evaluate(self, monitor: Monitor | Silent, figures: dict[str, Any]) -> None:
        self.score = self.trainer.score(self.evaluate)
        monitor.evaluation({**figures, "bits_per_character": self.score.bits_per_character}, self.settings.steps)

    def _save(self) -> bool:
        """Write a checkpoint, unless the loss is climbing; whether it was written."""
        if not self.guard.good:
            say(f"step {self.step}: the loss is climbing, no checkpoint is written")
            return False
        page = {
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "guard": self.guard.state(),
            "score": None if self.score is None else dataclasses.asdict(self.score),
        }
        place = state.step_folder(self.folder / "checkpoints", self.step)
        self.trainer.save(place, page)
        if self.trainer.leads:
            state.prune(place, self.settings.keep_checkpoints)
        return True

    def _restore(self) -> None:
        found = self.trainer.latest(self.folder / "checkpoints")
        if found is None:
            return
        tensors, page = found
        if page["identity"] != self.identity:
            raise CheckpointError(
                f"{self.folder} holds a run with other settings or other text; give another --run, or --restart"
                f" (of 'yatsude {self.settings.table}', for this stage alone)"
            )
        self.trainer.restore(tensors, page["step"])
        self.step, self.seconds = page["step"], page["seconds"]
        self.guard.restore(page["guard"])
        self.score = Score(**page["score"]) if page["score"] else None
        say(f"resuming {self.folder} at step {self.step:,} of {self.settings.steps:,}")
