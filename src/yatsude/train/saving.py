"""A state of many ranks on its way to the disk, while they train on.

    begin   every rank copies what it has, and a thread of its own writes and sums it
    end     when all threads are done, the first rank closes the folder and renames it: before, it counts as none

The threads never talk to other ranks: collectives beside those of the training end in a crash or a deadlock.
"""

import contextlib
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from yatsude.checkpoint.sharded import Piece, Writer, complete
from yatsude.checkpoint.sums import Sums
from yatsude.errors import MachineError
from yatsude.files import new_folder, refused
from yatsude.train.loop import Written

__all__ = ["Saving", "everyones", "shared"]

A = TypeVar("A")


class Saving:
    """One state at a time; `begin` and `end` are called by all ranks at the same step."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.all_written = False
        """Whether all ranks have told each other that they are done."""
        self._writer = Writer()
        self._place: Path | None = None
        self._folder: Path | None = None
        self._page: Mapping[str, Any] = {}
        self._draft = contextlib.ExitStack()
        """The folder until it is complete, on the first rank."""
        self._refused = ""

    @property
    def busy(self) -> bool:
        """Whether this rank is still writing."""
        return self._writer.busy

    def begin(self, place: Path, page: Mapping[str, Any], pieces: Iterable[Piece]) -> None:
        """Copy what this rank has, and let it be written."""
        assert self._place is None, "the state before has been ended"
        folder: Path | None = None
        try:
            if self.rank == 0:
                folder = self._draft.enter_context(new_folder(place, flushed=True))
        except (OSError, MachineError) as error:
            self._refused = self._named(error)
        self._place, self._page, self._folder, self.all_written = place, page, shared(folder), False
        if self._folder:
            self._writer.start(self._folder, self.rank, pieces)

    def end(self, wait: bool) -> Written | None:
        """What became of it once all have written, for which `wait` waits; none before, or if nothing was begun."""
        if self._place is None or not (wait or self.all_written):
            return None
        place, self._place, sums = self._place, None, Sums()
        try:
            sums = self._writer.result() if self._folder else sums
        except (OSError, MachineError) as error:
            self._refused = self._named(error)
        found, self._refused = everyones((sums, self._refused)), ""
        errors = [error for _, error in found if error]
        if self.rank == 0:
            errors = self._close({name: one for each, _ in found for name, one in each.items()}, errors)
        return Written(place, shared("; ".join(errors[:1])))

    def _close(self, sums: Sums, errors: list[str]) -> list[str]:
        """Complete the folder and give it its place, or remove it; what went wrong comes back."""
        try:
            with self._draft:
                if errors or not self._folder:
                    raise MachineError("a rank could not write")
                complete(self._folder, self._page, sums)
        except (OSError, MachineError) as error:
            return errors or [self._named(error)]
        return []

    def _named(self, error: Exception) -> str:
        return f"rank {self.rank} ({socket.gethostname()}): {refused(error)}"


def shared(value: A) -> A:
    """What rank 0 has, on all ranks."""
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def everyones(value: A) -> list[A]:
    """What each rank has, on all ranks."""
    found = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found
