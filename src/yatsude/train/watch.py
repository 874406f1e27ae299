"""How a run is watched: figures of the machine for each step, the plan's beside them, a view, and other places."""

import contextlib
import dataclasses
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yatsude.machine import resident
from yatsude.progress import Bar, bar, board, say
from yatsude.train.log import Line, numbers
from yatsude.train.settings import LoopSettings
from yatsude.train.sinks import Sink, open_sinks
from yatsude.train.view import View

__all__ = ["Expected", "Watch"]

Advance = Callable[[], tuple[dict[str, Any], Tensor]]

STEPS, LEAST, SECONDS = 10, 3, 60.0
"""After so many steps it is said how long one takes; after fewer where they took so long."""
MUCH = 0.15
"""Share of waiting that is said beside a step's time: the plan counts on a machine that the run has for itself."""
WINDOW = 100
"""Steps whose median counts as what a step takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of a run before its first step; zeros where nothing is."""

    seconds: float = 0.0
    """Of a step, as the plan has it."""
    flops: float = 0.0
    """Of the model for a token, forward and backward."""
    peak: float = 0.0
    """FLOP/s of all of the job, that MFU is a share of: measured products, or a data sheet."""
    workers: int = 1
    """Threads of this process that compute; 0: the calling one, as in a rank of a job."""


class Watch:
    """Follows one run; none of it changes what is computed."""

    def __init__(self, expected: Expected | None = None, sinks: tuple[str, ...] = ()) -> None:
        self.expected, self.names = expected or Expected(), sinks
        self._view: View | None = None
        self._sinks: dict[str, Sink] = {}
        self._taken: deque[float] = deque(maxlen=WINDOW)
        self._waited: deque[float] = deque(maxlen=WINDOW)
        self._steps, self._said = 0, False

    @property
    def seconds(self) -> float:
        """Median time of the last steps; NaN before there was one."""
        return statistics.median(self._taken) if self._taken else math.nan

    def phrase(self) -> str:
        """Say what a step takes, and what the plan said, with its error; nothing before there was one."""
        if not self._taken:
            return ""
        planned = self.expected.seconds
        beside = f", planned {planned:.3g} s ({100 * (planned / self.seconds - 1):+.0f} %)" if planned else ""
        waited = statistics.median(self._waited)
        return f"a step takes {self.seconds:.3g} s{beside}" + (
            f", {100 * waited:.0f} % of it waiting" * (waited > MUCH)
        )

    def summary(self) -> dict[str, float]:
        """The same for a manifest; what is not known is NaN."""
        planned = self.expected.seconds or math.nan
        return {"step_seconds": _short(self.seconds), "planned_step_seconds": _short(planned)}

    @contextlib.contextmanager
    def shown(self, settings: LoopSettings, folder: Path, step: int, leads: bool) -> Iterator[Bar | View]:
        """Show a run that goes on after `step` steps, on a terminal if there is one, and wherever else it is wanted.

        What comes back has `skip` and `advance` for tokens.
        """
        self._sinks = open_sinks(self.names, folder / "watch", step) if leads and self.names else {}
        view = View(settings.title, settings.steps)
        try:
            with board(view) as drawn:
                if drawn:
                    self._view = view
                    yield view
                    return
                tokens = settings.steps * settings.sequences_per_step * settings.sequence_length
                with bar(settings.title, tokens, "tokens") as progress:
                    yield progress
        finally:
            for name in list(self._sinks):
                self._with_sink(name, lambda sink: sink.close())

    def timed(self, advance: Advance) -> tuple[dict[str, Any], Tensor]:
        """Take a step; its figures come back with those of the machine under "machine"."""
        start, worked = time.perf_counter(), self._worked()
        figures, loads = advance()
        seconds = max(time.perf_counter() - start, 1e-9)
        waited = min(max(1 - (self._worked() - worked) / seconds, 0.0), 1.0)
        self._count(seconds, waited)
        return figures | {"machine": self._machine(seconds, waited, figures)}, loads

    def hear(self, line: Line) -> None:
        """Take a line of the log: for the view, and for every sink; one that fails is told, and gets no more."""
        if self._view:
            self._view.add(line)
        for name in list(self._sinks):
            self._with_sink(name, lambda sink: sink.write(line["step"], numbers(line)))

    def _with_sink(self, name: str, act: Callable[[Sink], None]) -> None:
        try:
            act(self._sinks[name])
        except Exception as error:  # another's package: whatever it raises must not end the training
            del self._sinks[name]
            say(f"watch.sinks: {name} gets no more figures of this run: {error!r:.200}")

    def _worked(self) -> float:
        """CPU seconds so far of each thread that computes."""
        return time.process_time() / self.expected.workers if self.expected.workers else time.thread_time()

    def _count(self, seconds: float, waited: float) -> None:
        """Take note of a step's time, and say once what steps take; the first is slower."""
        self._steps += 1
        if self._steps == 2:
            self._taken.clear()
            self._waited.clear()
        self._taken.append(seconds)
        self._waited.append(waited)
        enough = self._steps >= STEPS or (self._steps >= LEAST and sum(self._taken) > SECONDS)
        if enough and not self._said:
            self._said = True
            say(self.phrase())

    def _machine(self, seconds: float, waited: float, figures: dict[str, Any]) -> dict[str, Any]:
        """Figures of a step, with four digits."""
        expected, speed = self.expected, figures["tokens"] / figures["step"] / seconds
        now, most = resident()
        found = {
            "seconds": seconds,
            "planned": expected.seconds,
            "tokens_per_second": speed,
            "mfu": speed * expected.flops / expected.peak if expected.peak else 0.0,
            "peak": expected.peak,
            "memory": now,
            "peak_memory": most,
        }
        if torch.cuda.is_initialized():
            found |= {"cuda_memory": torch.cuda.memory_allocated(), "cuda_peak": torch.cuda.max_memory_allocated()}
        known: dict[str, Any] = {name: _short(value) for name, value in found.items() if value}
        return known | {"waiting": round(waited, 3)}


def _short(value: float) -> float:
    """Four digits are enough of what is measured."""
    return float(f"{value:.4g}")
