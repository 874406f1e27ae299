"""Which batches of the feed a run leaves out: those that made it go wrong.

A step of a run takes the next batch that is not left out, so a step is an update whatever was skipped, and every
resume, in any layout, sees the same samples. The list only grows. It is in every state, and in a file of its own from
the moment something is skipped:

    checkpoints/skipped.json        [{"first": 40, "last": 57, "step": 40, "why": "…"}, …]
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yatsude.files import new_file

__all__ = ["Skip", "Skips"]

NAME = "skipped.json"


@dataclasses.dataclass(frozen=True)
class Skip:
    """Batches `first` to `last` of the feed are left out, after `step` steps."""

    first: int
    last: int
    step: int
    why: str


class Skips:
    """What is left out so far."""

    def __init__(self, checkpoints: Path) -> None:
        self.path = checkpoints / NAME
        self.records: list[Skip] = []

    def batch(self, step: int) -> int:
        """Which batch of the feed the step after `step` steps takes.

        >>> skips.records = [Skip(2, 3, 2, "nan")]
        >>> [skips.batch(step) for step in range(4)]
        [0, 1, 4, 5]
        """
        number, past = step, -1
        for record in sorted(self.records, key=lambda record: record.first):
            first = max(record.first, past + 1)
            if first > number:
                break
            number += max(record.last + 1 - first, 0)
            past = max(past, record.last)
        return number

    def add(self, record: Skip) -> None:
        """Leave some more out."""
        self.records.append(record)

    def state(self) -> list[dict[str, Any]]:
        """Everything that is left out, for a page of JSON."""
        return [dataclasses.asdict(record) for record in self.records]

    def restore(self, state: Iterable[dict[str, Any]]) -> None:
        """Leave out what a state or the file names, too."""
        self.records += [found for one in state if (found := Skip(**one)) not in self.records]

    def read(self) -> list[dict[str, Any]]:
        """What the file names."""
        try:
            found: list[dict[str, Any]] = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return found

    def write(self) -> None:
        """Write the file."""
        with new_file(self.path) as draft:
            draft.write_text(json.dumps(self.state(), indent=1), encoding="utf-8")
