"""Ranks that tell where they are while they train, and which of them are slow."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yatsude.checkpoint.sharded import InShards, Sharded
from yatsude.model.scoring import Score
from yatsude.model.transformer import Transformer
from yatsude.parallel.job import Read
from yatsude.progress import say
from yatsude.spec.config import ModelConfig
from yatsude.spec.parallel import ParallelSettings
from yatsude.train.feed import Batch
from yatsude.train.loop import Written
from yatsude.train.pulse import END, Pulse
from yatsude.train.ranks import Ranks
from yatsude.train.settings import LoopSettings
from yatsude.train.slow import Slowness
from yatsude.train.tracker import Tracker

__all__ = ["Watched"]

COUNTED = 2
"""Step of a start in which collectives are counted: in the first one FSDP finds its order."""


class Watched(Ranks):
    """One rank's part of a `Trainer`, under watch."""

    def __init__(
        self,
        settings: LoopSettings,
        parallel: ParallelSettings,
        config: ModelConfig,
        start: Read,
        folder: Path,
        *,
        dtype: torch.dtype,
        pulse: Pulse,
    ) -> None:
        super().__init__(settings, parallel, config, start, folder, dtype=dtype)
        self._pulse, self._slowness, self._busy = pulse, Slowness(self.mesh.stage, self.mesh.device), 0.0
        self._tracker, self._steps = Tracker(), 0

    def gradient(self, batch: Batch, step: int) -> float:
        """Take the gradient of this rank's part of a step; the mean loss of all of it, in nats."""
        self._pulse.begin_step(step)
        self._busy = time.thread_time()
        with self._part("gradient"):
            return super().gradient(batch, step)

    def norm(self) -> float:
        """Length of the gradient of all ranks."""
        with self._part("norm"):
            return super().norm()

    def update(self, rate_share: float, norm: float) -> None:
        """Clip the gradient, move the weights, forget it."""
        with self._part("update"):
            super().update(rate_share, norm)

    def balance(self) -> Tensor:
        """Move the routers' biases; the loads of all layers, (mixture layers, E)."""
        with self._part("balance"):
            loads = super().balance()
        self._pulse.end_step()
        self._steps += 1
        with self._pulse.phase("looking for slow ranks"):
            self._tell_slow(self._slowness.step(time.thread_time() - self._busy))
        if self._steps == COUNTED:
            self._notes.append({"step": self._pulse.step, "traffic": self._tracker.lap().exchanged})
        return loads

    def score(self, evaluate: Callable[[Transformer], Score]) -> Score | None:
        """Let rank 0 put the model together and score it."""
        with self._pulse.phase("evaluation"):
            return super().score(evaluate)

    def save(self, place: Path, page: Mapping[str, Any]) -> None:
        """Begin to write a state, every rank its part."""
        with self._pulse.phase("saving"):
            super().save(place, page)

    def saved(self, wait: bool) -> Written | None:
        """What became of the state that was begun, once it is finished on all ranks."""
        with self._pulse.phase("saving"):
            return super().saved(wait)

    def latest(self, checkpoints: Path) -> tuple[Any, dict[str, Any]] | None:
        """Find the newest good state."""
        with self._pulse.phase("looking at states"):
            return super().latest(checkpoints)

    def restore(self, found: Sharded, steps: int) -> None:
        """Go on from a state, whatever the layout that wrote it."""
        with self._pulse.phase("restoring"):
            super().restore(found, steps)

    def source(self) -> InShards:
        """The weights of the last state."""
        self._pulse.phase_now = END
        return super().source()

    @contextlib.contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """A part of a step; of one step what is exchanged is counted."""
        counted = self._tracker if self._steps == COUNTED - 1 else contextlib.nullcontext()
        with self._pulse.phase(name), counted:
            yield

    def _tell_slow(self, found: Mapping[int, Mapping[str, Any]]) -> None:
        """Say and log who is slow: rank 0 does, for all."""
        if not (self.leads and found):
            return
        for rank, one in found.items():
            say(
                f"rank {rank} on {one['host']} is slow: {one['product']:.2f} times the usual for a product,"
                f" {one['busy']:.2f} times for its part of a step; all wait for it"
            )
        slow = [{"rank": rank, **one} for rank, one in found.items()]
        self._notes.append({"step": self._pulse.step, "slow": slow})
