"""One line that moves: how far, how fast, how long still. Without a terminal, a plain line now and then."""

import contextlib
import functools
import sys
import time
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Bar", "bar", "board", "cry", "draw", "hush", "say", "say_once"]

_console = Console(stderr=True, highlight=False, soft_wrap=True)
QUIET_INTERVAL_S = 15.0
LOOKS = 2
"""A second, at which a board is drawn anew: each takes some milliseconds from what runs beside it."""


def say(text: str) -> None:
    """Print one line for the user (on standard error; standard output is for results)."""
    _console.print(text, markup=False)


def hush() -> None:
    """Say nothing from here on: another process tells."""
    _console.quiet = True


def cry(text: str) -> None:
    """Print a line even so: what ends a process must be told by it."""
    _console.quiet = False
    say(text)


@functools.cache
def say_once(text: str) -> None:
    """Print a line that would otherwise come with every look at the same thing."""
    say(text)


class Bar:
    """A running task: `advance` it by a number of units, with an optional note such as the loss."""

    def __init__(self, title: str, total: float | None, unit: str, progress: Progress | None) -> None:
        self._title, self._total, self._unit, self._progress = title, total, unit, progress
        self._done, self._skipped = 0.0, 0.0
        self._start = self._said = time.monotonic()
        self._task = progress.add_task(title, total=total, rate="", note="") if progress else None

    def skip(self, units: float) -> None:
        """Count units that were finished before, without taking them for speed."""
        self._done += units
        self._skipped += units
        if self._progress and self._task is not None:
            self._progress.update(self._task, advance=units)

    def advance(self, units: float = 1.0, note: str = "") -> None:
        """Add finished units; the rate and the time left follow from them."""
        self._done += units
        rate = (self._done - self._skipped) / max(time.monotonic() - self._start, 1e-9)
        if self._progress and self._task is not None:
            self._progress.update(self._task, advance=units, rate=f"{rate:,.0f} {self._unit}/s", note=note)
        elif time.monotonic() - self._said > QUIET_INTERVAL_S:
            self._said = time.monotonic()
            share = f" {100 * self._done / self._total:.0f} %" if self._total else ""
            left = f", {(self._total - self._done) / rate:.0f} s left" if self._total and rate else ""
            say(f"{self._title}{share}, {rate:,.0f} {self._unit}/s{left}  {note}")


@contextlib.contextmanager
def bar(title: str, total: float | None = None, unit: str = "items") -> Iterator[Bar]:
    """Show a task of `total` units (None: unknown) while the block runs."""
    if not sys.stderr.isatty() or _console.quiet:
        yield Bar(title, total, unit, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %" if total else "{task.completed:,.0f}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=_console, transient=False) as progress:
        yield Bar(title, total, unit, progress)


@contextlib.contextmanager
def board(picture: RenderableType) -> Iterator[bool]:
    """Draw something that changes by itself while the block runs; whether there is a terminal to draw it on."""
    if not sys.stderr.isatty() or _console.quiet:
        yield False
        return
    with Live(picture, console=_console, refresh_per_second=LOOKS):
        yield True


def draw(picture: RenderableType) -> None:
    """Draw something once, on standard output: it is the result."""
    Console(highlight=False).print(picture)
