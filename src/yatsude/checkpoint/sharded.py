"""The state of a job on disk, written by all its ranks at once, and read by any number of others.

    step-00001200/rank-00000.safetensors …   what each rank holds
                  rank-00000.json …          of which tensor each piece is which box
                  page.json                  everything that is not a tensor
                  complete.json              size and SHA-256 of all of these: written last

A piece is a box of a whole tensor. Whoever reads asks for a box, and gets it from as many pieces as it takes: how many
ranks wrote, and how they had cut the model, does not matter.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yatsude.checkpoint.shard import Shard
from yatsude.checkpoint.tensors import save
from yatsude.errors import CheckpointError
from yatsude.files import sha256_of
from yatsude.spec.config import ModelConfig
from yatsude.spec.stored import stored

__all__ = ["InShards", "Piece", "Sharded", "complete", "write"]

Box = tuple[slice, ...]
Piece = tuple[str, tuple[int, ...], Box, Tensor]
"""Name and shape of a whole tensor, a box of it, and the numbers there."""
PAGE, COMPLETE = "page.json", "complete.json"


def write(folder: Path, rank: int, pieces: Iterable[Piece]) -> None:
    """Write what one rank holds into a folder that exists."""
    tensors: dict[str, Tensor] = {}
    entries = []
    for number, (name, shape, box, tensor) in enumerate(pieces):
        tensors[str(number)] = tensor
        entries.append([name, list(shape), [[side.start, side.stop] for side in box]])
    save(folder / f"rank-{rank:05d}.safetensors", tensors)
    (folder / f"rank-{rank:05d}.json").write_text(json.dumps(entries), encoding="utf-8")


def complete(folder: Path, page: Mapping[str, Any]) -> None:
    """Close a folder that all ranks have written into; before this it counts as none."""
    (folder / PAGE).write_text(json.dumps(page, ensure_ascii=False, indent=1), encoding="utf-8")
    files = sorted(path for path in folder.iterdir() if path.name != COMPLETE)
    sums = {path.name: [path.stat().st_size, sha256_of(path)] for path in files}
    (folder / COMPLETE).write_text(json.dumps(sums), encoding="utf-8")


class Sharded:
    """A state that is whole: every tensor in it is covered by its pieces, and its files are what was written.

    Without `check` the files are taken at their word, by those who know that somebody has looked.
    """

    def __init__(self, folder: Path, check: bool = True) -> None:
        self.folder = folder
        if check:
            self._check()
        self.page: dict[str, Any] = json.loads((folder / PAGE).read_text(encoding="utf-8"))
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Name -> shape of the whole tensor."""
        self._pieces: dict[str, list[tuple[Box, Shard, str]]] = {}
        for index in sorted(folder.glob("rank-*.json")):
            self._listed(index)
        if not self.shapes:
            raise CheckpointError(f"{folder} was written by one process; go on without [parallel], or --restart")
        self._refuse_gaps()

    def read(self, name: str, box: Box | None = None) -> Tensor:
        """Numbers of a box of a tensor, or of all of it."""
        if name not in self.shapes:
            raise CheckpointError(f"{self.folder} has no {name}; it is a checkpoint of another model")
        box = box or tuple(slice(0, size) for size in self.shapes[name])
        found: Tensor | None = None
        for piece, shard, key in self._pieces[name]:
            common = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, piece, strict=True)]
            if any(side.start >= side.stop for side in common):
                continue
            rows = common[0].start - piece[0].start, common[0].stop - piece[0].start
            inner = tuple(
                slice(c.start - p.start, c.stop - p.start) for c, p in zip(common[1:], piece[1:], strict=True)
            )
            part = shard.read(key, rows)[(slice(None), *inner)]
            if found is None:
                found = torch.empty([side.stop - side.start for side in box], dtype=part.dtype)
            found[_within(common, box)] = part
        if found is None:
            raise CheckpointError(f"{self.folder} has nothing of {name} at {box}; it is a checkpoint of another model")
        return found

    def _listed(self, index: Path) -> None:
        shard = Shard(index.with_suffix(".safetensors"))
        for number, (name, shape, sides) in enumerate(json.loads(index.read_text(encoding="utf-8"))):
            if self.shapes.setdefault(name, tuple(shape)) != tuple(shape):
                raise CheckpointError(
                    f"{index}: {name} has shape {shape}, elsewhere {self.shapes[name]}; it is damaged"
                )
            box = tuple(slice(start, stop) for start, stop in sides)
            self._pieces.setdefault(name, []).append((box, shard, str(number)))

    def _refuse_gaps(self) -> None:
        for name, shape in self.shapes.items():
            held = sum(math.prod(side.stop - side.start for side in box) for box, _, _ in self._pieces[name])
            if held != math.prod(shape):
                raise CheckpointError(f"{self.folder}: pieces of {name} are {held:,} numbers of {math.prod(shape):,}")

    def _check(self) -> None:
        """Every file must be what was written."""
        try:
            sums = json.loads((self.folder / COMPLETE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            raise CheckpointError(f"{self.folder} is no complete checkpoint; start from an earlier one") from None
        for name, (size, digest) in sums.items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != size or sha256_of(path) != digest:
                raise CheckpointError(f"{path} is not what was written; start from an earlier checkpoint")


class InShards:
    """The weights of a state, by their names in Hugging Face files: exported without ever being whole in memory."""

    def __init__(self, state: Sharded, config: ModelConfig) -> None:
        self.state, self.config = state, config
        self._entries = stored(config)

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """A tensor, or some rows of it."""
        entry = self._entries[name]
        place = entry.place
        start = place.rows[0] if place.rows else 0
        first, last = rows or (0, entry.shape[0])
        box = [slice(start + first, start + last), *(slice(0, size) for size in entry.shape[1:])]
        if place.expert is None:
            return self.state.read(place.tensor, tuple(box))
        return self.state.read(place.tensor, (slice(place.expert, place.expert + 1), *box))[0]

    def lies(self, name: str) -> None:
        """In no folder of files."""


def _within(box: Sequence[slice], outer: Sequence[slice]) -> Box:
    """A box by its place in another that holds it."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, outer, strict=True))
