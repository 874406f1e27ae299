"""Training: feed, gradient, update, balance, and a state that the same command resumes.

A run's folder holds `log.jsonl` (every step, every score) and `checkpoints/` (states to resume from).
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from yatsude.checkpoint import state
from yatsude.checkpoint.write import Weights
from yatsude.errors import CheckpointError, MachineError, TrainingError
from yatsude.model.scoring import Score
from yatsude.model.transformer import Transformer
from yatsude.progress import say
from yatsude.train.feed import Batch, Source
from yatsude.train.guard import Guard, NotFiniteError
from yatsude.train.identity import Identity
from yatsude.train.monitor import Monitor, Silent
from yatsude.train.schedule import share
from yatsude.train.settings import LoopSettings
from yatsude.train.skips import Skip, Skips
from yatsude.train.stopping import asked_to_stop
from yatsude.train.watch import Watch

__all__ = ["Loop", "Trainer", "Written"]

A = TypeVar("A")
BEFORE_SPIKE = 10
"""Steps by which a state must be older than a spike to be taken for one from before it."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What became of a state: `error` says, in one line, why it is not there."""

    place: Path
    error: str = ""


class Trainer(Protocol):
    """What holds the weights and moves them: one process, or the ranks of a job."""

    @property
    def leads(self) -> bool:
        """Whether this process tells what happens."""
        ...

    def score(self, evaluate: Callable[[Transformer], Score]) -> Score | None:
        """Score the model as it is; none where that was not possible, which has been told."""
        ...

    def rows(self, count: int) -> slice:
        """Which of a step's `count` sequences this process reads."""
        ...

    def gradient(self, batch: Batch, step: int) -> float:
        """Take the gradient of a step, given those; the mean loss over all counted tokens, in nats."""
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

    def forget(self) -> None:
        """Drop the gradient, and what was counted on the way to it, as if the step had not been."""
        ...

    def trace(self, batch: Batch, step: int) -> str:
        """Where in a step something is no number first, in a few words; the step is done again, and forgotten."""
        ...

    def agree(self, stop: bool) -> bool:
        """Whether anybody wants to stop."""
        ...

    def notes(self) -> list[dict[str, Any]]:
        """What happened beside the steps since this was asked last, as lines for the log."""
        ...

    def shared(self, value: A) -> A:
        """What the process that leads has, in all of them."""
        ...

    def source(self) -> Weights:
        """The weights at full precision, to be written."""
        ...

    def save(self, place: Path, page: Mapping[str, Any]) -> None:
        """Begin to write a state, of the weights as they are; the one before must have been asked for."""
        ...

    def saved(self, wait: bool) -> Written | None:
        """What became of the state that was begun, once; none if there is none, or it is not finished.

        With `wait` it is finished first; without, this follows an `agree`.
        """
        ...

    def latest(self, checkpoints: Path) -> tuple[Any, dict[str, Any]] | None:
        """Find the newest good state: what `restore` takes, and its page."""
        ...

    def restore(self, found: Any, steps: int) -> None:
        """Go on from a state that was written after `steps` steps."""
        ...


class Loop:
    """One run over a source of samples: pre-training and fine-tuning both are this.

    It goes on from the newest state in `folder`, if there is one. `identity` is everything that the result depends on;
    a state of another identity is not resumed, unless the keys or sections that differ are those in `allow`.
    """

    def __init__(
        self,
        settings: LoopSettings,
        trainer: Trainer,
        source: Source,
        folder: Path,
        *,
        evaluate: Callable[[Transformer], Score],
        identity: Identity,
        allow: Sequence[str] = (),
    ) -> None:
        self.settings, self.trainer, self.source, self.folder = settings, trainer, source, folder
        self.evaluate, self.identity, self.watch = evaluate, identity, Watch()
        self.checkpoints = folder / "checkpoints"
        self.guard = Guard(settings.table, spikes=settings.spikes > 0)
        self.skips = Skips(self.checkpoints)
        self.step = 0
        self.seconds = 0.0
        self.score: Score | None = None
        self.pauses: list[float] = []
        """Seconds for which training stood still to keep each state."""
        self._best = math.inf
        self._scored = -1
        self._pause = 0.0
        self._refused = ""
        self._notes: list[dict[str, Any]] = []
        self._restore(allow)

    def run(self) -> Weights:
        """Train to the last step; the weights in float32 come back."""
        steps, tokens = self.settings.steps, self.settings.sequences_per_step * self.settings.sequence_length
        monitor = self._monitor()
        try:
            shown = self.watch.shown(self.settings, self.folder, self.step, self.trainer.leads)
            with shown as progress, asked_to_stop() as stop:
                progress.skip(self.step * tokens)
                while self.step < steps:
                    step = self.step
                    try:
                        figures, loads = self.watch.timed(self.advance)
                    except TrainingError as fault:
                        self._recover(fault)
                        if self.step < step:
                            progress.skip((self.step - step) * tokens)
                            monitor.close()
                            monitor = self._monitor()
                        continue
                    progress.advance(tokens, f"loss {self.guard.smooth:.3f}")
                    self._tell(monitor)
                    monitor.step(figures, loads, self.trainer.bias_ranges())
                    better = self._due(self.settings.evaluations) and self._evaluate(monitor, figures)
                    stopping = self.trainer.agree(stop.is_set())
                    self._settle(wait=False)
                    if stopping:
                        begun = self._save()
                        done = self._settle(wait=True) and begun
                        here = f"step {self.step:,} of {steps:,}" if done else "the last good checkpoint"
                        raise KeyboardInterrupt(f"stopped at {here}")
                    if self._is_kept() or (better and self.settings.keep_best):
                        self._save()
            if not self._settle(wait=True):
                raise MachineError(f"the last state is not written: {self._refused}")
        except TrainingError:
            self._settle(wait=True)  # all ranks come here, so what they were writing is finished
            raise
        finally:
            self._tell(monitor)
            monitor.close()
        self.guard.end()
        return self.trainer.source()

    def advance(self) -> tuple[dict[str, Any], Tensor]:
        """One step: the figures for the log, and the loads of the experts."""
        start = time.perf_counter()
        count = self.settings.sequences_per_step
        rows = self.trainer.rows(count)
        batch = self.source.batch(self.skips.batch(self.step) * count + rows.start, rows.stop - rows.start)
        loss = self.trainer.gradient(batch, self.step)
        norm = self.trainer.norm()
        self.guard.watch(self.step + 1, loss, norm, lambda: self.trainer.trace(batch, self.step))
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
        if self._pause:
            figures["pause"] = round(self._pause, 3)
            self._pause = 0.0
        return figures, loads

    def say_pauses(self) -> None:
        """Say for how long training stood still to keep its states."""
        if self.pauses:
            total, most = sum(self.pauses), max(self.pauses)
            say(f"checkpoints: {len(self.pauses)}, for which training stood still {total:.2f} s, {most:.2f} s at most")

    def _monitor(self) -> Monitor | Silent:
        return Monitor(self.folder / "log.jsonl", self.step, self.watch.hear) if self.trainer.leads else Silent()

    def _tell(self, monitor: Monitor | Silent) -> None:
        """Log what happened beside the steps."""
        for note in self._notes + self.trainer.notes():
            monitor.note(note)
        self._notes.clear()

    def _due(self, times: int) -> bool:
        """Whether one of `times` moments, spread evenly and the last at the end, has just come."""
        steps = self.settings.steps
        return times > 0 and self.step * times // steps > (self.step - 1) * times // steps

    def _is_kept(self) -> bool:
        """Whether a state is due."""
        settings = self.settings
        every = settings.keep_every and self.step % settings.keep_every == 0
        return self.step % settings.checkpoint_steps == 0 or self.step == settings.steps or bool(every)

    def _evaluate(self, monitor: Monitor | Silent, figures: dict[str, Any]) -> bool:
        """Score the model; whether it was never better."""
        score = self.trainer.score(self.evaluate)
        if score is None:
            return False
        self.score, self._scored = score, self.step
        monitor.evaluation({**figures, "bits_per_character": score.bits_per_character}, self.settings.steps)
        best, self._best = self._best, min(self._best, score.bits_per_character)
        return score.bits_per_character < best

    def _recover(self, fault: TrainingError) -> None:
        """Leave out what made a step go wrong, if the policy has it: this batch, or all since a state from before."""
        self._settle(wait=True)
        if len(self.skips.records) >= self.settings.spikes:
            used = f" (and {self.settings.table}.spikes = {self.settings.spikes} are used up)"
            raise type(fault)(f"{fault}{used if self.settings.spikes else ''}") from None
        wrong, again = self.skips.batch(self.step), any(skip.step == self.step for skip in self.skips.records)
        self.trainer.forget()
        if not isinstance(fault, NotFiniteError) or again:
            self._go_back(fault)
        first = self.skips.batch(self.step)
        why = str(fault).partition(";")[0]
        self.skips.add(Skip(first, wrong, self.step, why))
        try:
            if self.trainer.leads:
                self.skips.write()
        except (OSError, MachineError) as error:
            say(f"what is left out stands in the next state alone: {error}")
        count = self.settings.sequences_per_step
        samples = f"samples {first * count:,} to {(wrong + 1) * count - 1:,} are left out"
        say(f"{why}: on from step {self.step:,}, {samples} ({len(self.skips.records)} of {self.settings.spikes})")
        self._notes.append({"step": self.step, "skipped": [first * count, (wrong + 1) * count - 1], "why": why})

    def _go_back(self, fault: TrainingError) -> None:
        """Take the newest state that is from before a spike, or the oldest there is."""
        if self.trainer.leads:
            state.forget_after(self.checkpoints, self.step - BEFORE_SPIKE)
        found = self.trainer.latest(self.checkpoints)
        if found is None:
            raise fault
        self._take(*found)

    def _save(self) -> bool:
        """Begin a checkpoint, unless the loss is climbing; whether it was begun."""
        if not self.guard.good:
            say(f"step {self.step}: the loss is climbing, no checkpoint is written")
            return False
        self._settle(wait=True)
        start = time.perf_counter()
        page = {
            "identity": self.identity.digest,
            "settings": dict(self.identity.values),
            "step": self.step,
            "seconds": self.seconds,
            "guard": self.guard.state(),
            "score": None if self.score is None else dataclasses.asdict(self.score),
            "bits_per_character": self.score.bits_per_character if self.score and self._scored == self.step else None,
            "best": self._best if math.isfinite(self._best) else None,
            "skipped": self.skips.state(),
        }
        self.trainer.save(state.step_folder(self.checkpoints, self.step), page)
        self.pauses.append(0.0)
        self._stood_still(start)
        return True

    def _settle(self, wait: bool) -> bool:
        """See what became of the state that was begun; whether nothing is wrong with it."""
        start = time.perf_counter()
        written = self.trainer.saved(wait)
        if written is None:
            return True
        if written.error:
            self._refused = written.error
            why = written.error.partition(";")[0]  # what to do follows, for a run that has ended
            say(f"{written.place.name} is not written ({why}); the state before it stays, training goes on")
        elif self.trainer.leads:
            settings = self.settings
            state.prune(written.place, settings.keep_checkpoints, settings.keep_every, settings.keep_best)
        self._stood_still(start)
        return not written.error

    def _stood_still(self, start: float) -> None:
        """Count the time since `start` for the state that was begun last."""
        seconds = time.perf_counter() - start
        self._pause += seconds
        self.pauses[-1] += seconds

    def _restore(self, allow: Sequence[str]) -> None:
        self.skips.restore(self.trainer.shared(self.skips.read() if self.trainer.leads else []))
        found = self.trainer.latest(self.checkpoints)
        if found is None:
            return
        changes = self.identity.refuse(found[1], allow, self.folder, self.settings.table)
        if (step := found[1]["step"]) > self.settings.steps:
            raise CheckpointError(
                f"{self.folder} is at step {step:,}, and {self.settings.table}.steps = {self.settings.steps:,}: that is"
                " over; give more steps, another --run, or --restart"
            )
        self._take(*found)
        say(f"resuming {self.folder} at step {self.step:,} of {self.settings.steps:,}")
        for change in changes:
            say(f"changed: {change}")
        if changes:
            changed = {change.key: [change.then, change.now] for change in changes}
            self._notes.append({"step": self.step, "changed": changed})

    def _take(self, found: Any, page: Mapping[str, Any]) -> None:
        """Become what a state is of."""
        self.trainer.restore(found, page["step"])
        self.step, self.seconds = page["step"], page["seconds"]
        self.guard.restore(page["guard"])
        self.score = Score(**page["score"]) if page["score"] else None
        self._best = page.get("best") or math.inf
        self._scored = self.step if page.get("bits_per_character") is not None else -1
        self.skips.restore(page.get("skipped", ()))
