"""What a run tells while it runs: a line on the screen, and all of it in `log.jsonl` (`log.py` has the fields)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from yatsude.files import new_file
from yatsude.model.router_stats import relative_load
from yatsude.progress import say, say_once
from yatsude.train.evenness import STEPS, Evenness
from yatsude.train.log import Line, read_log

__all__ = ["Monitor", "Silent", "read_log"]


class Silent:
    """What the other ranks have: the first one tells for all."""

    def step(self, figures: Mapping[str, Any], loads: Tensor, biases: Sequence[float | None] = ()) -> None:
        """Tell nothing of a step."""

    def evaluation(self, figures: Mapping[str, Any], steps: int) -> None:
        """Tell nothing of a score."""

    def note(self, line: Mapping[str, Any]) -> None:
        """Tell nothing of what happened."""

    def close(self) -> None:
        """End nothing."""


class Monitor:
    """Writes the log of one run; lines after `step` (of an attempt that was cut off) are dropped first."""

    def __init__(self, path: Path, step: int, hear: Callable[[Line], None] | None = None) -> None:
        """`hear` is called with every line that is written."""
        kept = [line for line in read_log(path) if line["step"] <= step] if path.exists() else []
        with new_file(path) as draft:
            draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._stream, self._hear = path.open("ab", buffering=0), hear
        self._waiting = b""
        self._evenness = Evenness()
        for line in [line for line in kept if "load" in line][-2 * STEPS :]:
            self._evenness.add(line["load"])

    def step(self, figures: Mapping[str, Any], loads: Tensor, biases: Sequence[float | None] = ()) -> None:
        """Log one training step; `loads` are tokens an expert, (mixture layers, E), `biases` the layers' ranges."""
        load = [[round(v, 3) for v in row] for row in relative_load(loads).tolist()]
        self._evenness.add(load)
        line = {**figures, "load": load}
        if known := [value for value in biases if value is not None]:
            line["bias_range"] = round(max(known), 4)
        if figures["step"] % STEPS == 0:
            line |= self._evenness.figures()
            for warning in self._evenness.warnings():
                say(warning)
        self._write(line)

    def evaluation(self, figures: Mapping[str, Any], steps: int) -> None:
        """Log and say a score on validation text."""
        self._write(figures)
        balance = self._evenness.phrase()
        say(
            f"step {figures['step']:,} of {steps:,}: {figures['bits_per_character']:.3f} bits per character"
            f" in validation, training loss {figures['loss']:.3f} nats a token, {figures['seconds']:.0f} s"
            + (f", {balance}" if balance else "")
        )

    def note(self, line: Mapping[str, Any]) -> None:
        """Log what happened beside the steps."""
        self._write(line)

    def close(self) -> None:
        """Finish the file, with lines that waited for room if there is some now."""
        self._flush()
        self._stream.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        """Add a line; on a full disk it waits, and is written with those that follow."""
        if self._hear:
            self._hear(dict(line))
        self._waiting += (json.dumps(line) + "\n").encode()
        self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        try:
            self._waiting = self._waiting[self._stream.write(self._waiting) :]
        except OSError as error:
            say_once(f"{self._stream.name}: {error.strerror}; the log waits for room, training goes on")
