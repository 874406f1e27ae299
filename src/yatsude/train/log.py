"""The log of a run, `log.jsonl`, as it is read: one object a line (docs/train.md has its fields). No torch.

{"step": 10, "loss": 6.1, "gradient_norm": 0.8, "rate_share": 1.0, "tokens": 20480, "seconds": 4.1,
 "machine": {"seconds": 0.41, "planned": 0.4, "tokens_per_second": 4995.1, "mfu": 0.52, "peak": 4.1e11,
             "memory": 1.2e9, "peak_memory": 1.4e9, "waiting": 0.04},
 "load": [[0.9, 1.1, ...]],                    tokens of each expert over the mean, a list for each mixture layer
 "bias_range": 0.4,                            greatest less least bias, of the layer where that is most
 "busiest": 1.2, "idlest": 0.9, "dead": 0, "drift": 0.03}   every hundredth step, of a hundred: see evenness.py
{"step": 100, "bits_per_character": 3.1, "loss": 4.4, ... the same figures of that step, but no load}
{"step": 100, "skipped": [3200, 3839], "why": "loss spikes: 9.1 at step 120, ..."}      samples that were left out
{"step": 100, "changed": {"train.steps": [1000, 2000]}}                      settings that a resume brought
{"step": 2, "traffic": {"all-gather": [12, 7261632], ...}}     calls and bytes of collectives in a step of rank 0
{"step": 100, "slow": [{"rank": 3, "host": "b", "product": 1.4, "busy": 1.4}]}    ranks for which the others wait
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Line", "Reader", "numbers", "read_log"]

Line = dict[str, Any]
TAIL = 2**23
"""Bytes from the end of a long log at which one begins to look on."""


def read_log(path: Path) -> list[Line]:
    """All whole lines of a log; a last line that was cut off is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


class Reader:
    """Reads a log while it is written: whole lines, each once; begins anew when a resumed run has rewritten it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = 0
        self._place = 0

    def new(self) -> list[Line]:
        """Lines since the last call; at first those of the log's end. Raises OSError where there is no log."""
        with self.path.open("rb") as stream:
            state = os.fstat(stream.fileno())
            if state.st_ino != self._file or state.st_size < self._place:
                self._file, self._place = state.st_ino, max(state.st_size - TAIL, 0)
                stream.seek(self._place)
                if self._place:
                    self._place += len(stream.readline())  # of which the beginning is missing
            stream.seek(self._place)
            whole = stream.read().rpartition(b"\n")[0]
        self._place += len(whole) + 1 if whole else 0
        return [json.loads(line) for line in whole.split(b"\n") if line]


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Figures of a line by name, for what takes plain numbers: "loss", "machine/mfu", "load/busiest".

    Of a score that of validation text alone, as its step has told the rest.

    >>> numbers({"step": 3, "loss": 2.5, "machine": {"mfu": 0.5}, "load": [[0.5, 1.5]]})
    {'loss': 2.5, 'machine/mfu': 0.5, 'load/busiest': 1.5, 'load/idlest': 0.5}
    """
    if "bits_per_character" in line:
        return {"validation/bits_per_character": float(line["bits_per_character"])}
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{key}": one for key, one in numbers(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            found[name] = float(value)
    if load := [share for layer in line.get("load", ()) for share in layer]:
        found |= {"load/busiest": float(max(load)), "load/idlest": float(min(load))}
    return found
