"""The state of a job on disk, written by all its ranks at once, and read by any number of others, or by one process.

    step-00001200/rank-00000.safetensors …   what each rank holds
                  rank-00000.json …          of which tensor each piece is which box
                  page.json                  everything that is not a tensor
                  complete.json              size and SHA-256 of all of these: written last

A piece is a box of a whole tensor. Whoever reads asks for a box, and gets it from as many pieces as it takes: how many
ranks wrote, and how they had cut the model, does not matter. What one process wrote has one piece a tensor.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yatsude.checkpoint.shard import Shard
from yatsude.checkpoint.sums import COMPLETE, PAGE, TENSORS, Sums, damage, put
from yatsude.checkpoint.tensors import stream
from yatsude.errors import CheckpointError
from yatsude.files import sha256_of
from yatsude.spec.config import ModelConfig
from yatsude.spec.stored import stored

__all__ = ["InShards", "Piece", "Sharded", "Writer", "complete", "write"]

Box = tuple[slice, ...]
Piece = tuple[str, tuple[int, ...], Box, Tensor]
"""Name and shape of a whole tensor, a box of it, and the numbers there."""


def write(folder: Path, rank: int, pieces: Iterable[Piece]) -> Sums:
    """Write what one rank holds into a folder that exists; each file is summed while it is written, and is on disk."""
    tensors: dict[str, Tensor] = {}
    entries = []
    for number, (name, shape, box, tensor) in enumerate(pieces):
        tensors[str(number)] = tensor
        entries.append([name, list(shape), [[side.start, side.stop] for side in box]])
    numbers, index = folder / f"rank-{rank:05d}.safetensors", folder / f"rank-{rank:05d}.json"
    return {numbers.name: stream(numbers, tensors), index.name: put(index, json.dumps(entries))}


def complete(folder: Path, page: Mapping[str, Any], sums: Mapping[str, tuple[int, str]] | None = None) -> None:
    """Close a folder that all ranks have written into; before this it counts as none.

    `sums` are what they say that they wrote; without them every file is read.
    """
    known = dict(sums or {})
    for path in sorted(folder.iterdir()) if sums is None else ():
        if path.name not in (PAGE, COMPLETE):
            known[path.name] = path.stat().st_size, sha256_of(path)
    known[PAGE] = put(folder / PAGE, json.dumps(page, ensure_ascii=False, indent=1))
    put(folder / COMPLETE, json.dumps(known))


class Writer:
    """Writes what one rank holds while its training goes on: the caller waits for a copy alone.

    The copy lies in memory that is used again the next time, in pinned memory where the tensors are a GPU's.
    """

    def __init__(self) -> None:
        self._copies: dict[int, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, "state")  # which a process waits for before it ends
        self._written: Future[Sums] | None = None

    def start(self, folder: Path, rank: int, pieces: Iterable[Piece]) -> None:
        """Copy the pieces, and begin to write them."""
        assert self._written is None, "what was written before has been asked for"
        copies = [(*place, self._copy(number, tensor)) for number, (*place, tensor) in enumerate(pieces)]
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        self._written = self._thread.submit(write, folder, rank, copies)  # type: ignore[arg-type]

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._written is not None and not self._written.done()

    def result(self) -> Sums:
        """Wait until all is written; what went wrong is raised here."""
        assert self._written is not None, "something was started"
        written, self._written = self._written, None
        return written.result()

    def _copy(self, number: int, tensor: Tensor) -> Tensor:
        copy = self._copies.get(number)
        if copy is None or (copy.shape, copy.dtype) != (tensor.shape, tensor.dtype):
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies[number] = copy
        return copy.copy_(tensor.detach(), non_blocking=True)


class Sharded:
    """A state that is whole: every tensor in it is covered by its pieces, and its files are what was written.

    Without `check` the files are taken at their word, by those who know that somebody has looked.
    """

    def __init__(self, folder: Path, check: bool = True) -> None:
        self.folder = folder
        if check and (wrong := damage(folder)):
            raise CheckpointError(f"checkpoint {folder} cannot be used: {wrong}; start from an earlier one")
        self.page: dict[str, Any] = json.loads((folder / PAGE).read_text(encoding="utf-8"))
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Name -> shape of the whole tensor."""
        self._pieces: dict[str, list[tuple[Box, Shard, str]]] = {}
        for index in sorted(folder.glob("rank-*.json")):
            self._listed(index)
        if (folder / TENSORS).is_file():
            self._by_one_process(Shard(folder / TENSORS))
        self._refuse_gaps()

    def refuse_another(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse the state of a model whose weights are not these, name -> shape."""
        for name, shape in shapes.items():
            if self.shapes.get(name) != shape:
                has = f"{name} of shape {self.shapes[name]}" if name in self.shapes else f"no {name}"
                raise CheckpointError(
                    f"{self.folder} is a checkpoint of another model: it has {has}, expected shape {shape}; give"
                    " another --run, or --restart"
                )

    def read(self, name: str, box: Box | None = None) -> Tensor:
        """Numbers of a box of a tensor, or of all of it."""
        if name not in self.shapes:
            raise CheckpointError(f"{self.folder} has no {name}; it is a checkpoint of another model")
        if box is None and len(self._pieces[name]) == 1:
            ((_, shard, key),) = self._pieces[name]
            return shard.read(key)
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

    def _by_one_process(self, shard: Shard) -> None:
        for name, entry in shard.entries.items():
            self.shapes[name] = tuple(entry.shape)
            self._pieces[name] = [(tuple(slice(0, size) for size in entry.shape), shard, name)]

    def _refuse_gaps(self) -> None:
        for name, shape in self.shapes.items():
            held = sum(math.prod(side.stop - side.start for side in box) for box, _, _ in self._pieces[name])
            if held != math.prod(shape):
                raise CheckpointError(f"{self.folder}: pieces of {name} are {held:,} numbers of {math.prod(shape):,}")


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
