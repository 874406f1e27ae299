"""A run at a glance, drawn from the lines of its log: while it trains, or from another shell. No torch."""

import itertools
import statistics
from collections import deque
from collections.abc import Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from yatsude.train.log import Line

__all__ = ["View", "sparkline"]

STEPS = 200
"""That the curve of the loss looks back."""
RECENT = 20
"""Whose median speed and time left follow from."""
POINTS = 40
"""Of the curve."""
NOTES = 3
BARS = "▁▂▃▄▅▆▇█"


class View:
    """The last steps of a run as a picture of a few lines; `rich` draws it."""

    def __init__(self, title: str, steps: int = 0) -> None:
        """`steps` is the length of the run; 0: not known."""
        self.title, self.steps = title, steps
        self._lines: deque[Line] = deque(maxlen=STEPS)
        self._notes: deque[Line] = deque(maxlen=NOTES)
        self._score: Line = {}

    def add(self, line: Line) -> None:
        """Take a line of the log: a step, a score, or what else it tells, which is shown as it is."""
        if "bits_per_character" in line:
            self._score = line
        elif "loss" in line:
            self._lines.append(line)
        else:
            self._notes.append(line)

    def skip(self, units: float) -> None:
        """As a progress bar has it; the log tells."""

    def advance(self, units: float = 1.0, note: str = "") -> None:
        """As a progress bar has it; the log tells."""

    @property
    def ended(self) -> bool:
        """Whether the last step is there."""
        return bool(self._lines and self.steps and self._lines[-1]["step"] >= self.steps)

    def __rich__(self) -> Group | Text:
        """What is drawn now."""
        lines = list(self._lines)  # at once: others add to them meanwhile
        if not lines:
            return Text(f"{self.title}: no step yet")
        table = Table.grid(padding=(0, 2))
        for name, words in self._rows(lines):
            table.add_row(Text(name, style="dim"), Text(words, no_wrap=True, overflow="ellipsis"))
        return Group(self._head(), table)

    def _head(self) -> Table:
        last = self._lines[-1]
        head = Table.grid(padding=(0, 2))
        share = f"{100 * last['step'] / self.steps:.0f} %" if self.steps else ""
        of = f" of {self.steps:,}" if self.steps else ""
        bar = ProgressBar(total=self.steps or None, completed=last["step"], width=24)
        left = (self.steps - last["step"]) * self._seconds() if self.steps else 0.0
        head.add_row(f"{self.title}, step {last['step']:,}{of}", bar, share, f"{_clock(left)} left" if left else "")
        return head

    def _rows(self, lines: list[Line]) -> list[tuple[str, str]]:
        last = lines[-1]
        machine = last.get("machine", {})
        rows = [("loss", f"{last['loss']:.3f}  {sparkline([line['loss'] for line in lines])}")]
        if self._score:
            rows.append(("validation", f"{self._score['bits_per_character']:.3f} bits a character"))
        rows.append(("speed", self._speed(machine)))
        if used := _used(machine):
            rows.append(("used", used))
        if load := [share for layer in last.get("load", ()) for share in layer]:
            idle = f", {sum(share == 0 for share in load)} without a token" if 0 in load else ""
            rows.append(("experts", f"busiest {max(load):.2f}, idlest {min(load):.2f} of the mean{idle}"))
        if memory := machine.get("memory"):
            cuda = machine.get("cuda_memory")
            more = f", {cuda / 1e9:.2f} GB on the GPU" if cuda else ""
            rows.append(("memory", f"{memory / 1e9:.2f} GB, peak {machine['peak_memory'] / 1e9:.2f} GB{more}"))
        return rows + [(f"step {note.get('step', '?')}", _words(note)) for note in list(self._notes)]

    def _speed(self, machine: Line) -> str:
        seconds = self._seconds()
        words = f"{self._tokens() / seconds:,.0f} tokens/s, a step {seconds:.3g} s" if seconds else ""
        if planned := machine.get("planned"):
            words += f", planned {planned:.3g} s"
        return words

    def _pairs(self) -> list[tuple[Line, Line]]:
        """Recent steps that follow each other; a run that was rolled back has gaps."""
        recent = list(self._lines)[-RECENT - 1 :]
        return [(one, two) for one, two in itertools.pairwise(recent) if two["step"] == one["step"] + 1]

    def _seconds(self) -> float:
        """Median of a step; scores and checkpoints are not in it."""
        return statistics.median([two["seconds"] - one["seconds"] for one, two in self._pairs()] or [0.0])

    def _tokens(self) -> float:
        return statistics.median([two["tokens"] - one["tokens"] for one, two in self._pairs()] or [0.0])


def sparkline(values: Sequence[float], points: int = POINTS) -> str:
    """A curve in one line of text: means of neighbours between their least and their greatest.

    >>> sparkline([1, 2, 3, 4])
    '▁▃▆█'
    """
    size = -(-len(values) // points) or 1
    means = [statistics.fmean(values[at : at + size]) for at in range(0, len(values), size)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    reach = (high - low) or 1.0
    return "".join(BARS[round((mean - low) / reach * (len(BARS) - 1))] for mean in means)


def _used(machine: Line) -> str:
    words = []
    if mfu := machine.get("mfu"):
        words.append(f"MFU {100 * mfu:.0f} % of {machine['peak'] / 1e12:.3g} TFLOP/s")
    if (waiting := machine.get("waiting")) is not None:
        words.append(f"waiting {100 * waiting:.0f} % of the time")
    return ", ".join(words)


def _words(note: Line) -> str:
    return ", ".join(f"{name} {value}" for name, value in note.items() if name != "step")


def _clock(seconds: float) -> str:
    """Time as one reads it.

    >>> _clock(59), _clock(3725), _clock(200000)
    ('0:59', '1:02:05', '2 d 7 h')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
