"""One safetensors file, read piece by piece: nothing of it stays in memory but its header.

A file is 8 bytes of length, a JSON header (name -> dtype, shape, where its bytes are), and the bytes. What a header
claims is checked against the file before anything is read. No pickle.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yatsude.errors import CheckpointError

__all__ = ["DTYPES", "Entry", "Shard", "as_bytes"]

MOST_HEADER = 100_000_000
"""Bytes of a header; the largest published models have some 20 MB in their index, and far less in a file."""
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def as_bytes(tensor: Tensor) -> memoryview:
    """Look at the bytes of a tensor that lies in one piece."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


class Entry:
    """A tensor of a file: dtype, shape, and where it begins (bytes from the start of the file)."""

    __slots__ = ("dtype", "shape", "start")

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...], start: int) -> None:
        self.dtype, self.shape, self.start = dtype, shape, start

    @property
    def bytes(self) -> int:
        """Size of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


class Shard:
    """A file of tensors; every read opens the file anew, so that nothing is left open.

    >>> shard = Shard(Path("model.safetensors"))
    >>> shard.read("model.norm.weight").shape
    torch.Size([192])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = self._entries()

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """Read a tensor, or some rows of it."""
        entry = self.entries[name]
        first, last = rows or (0, entry.shape[0] if entry.shape else 1)
        shape = (last - first, *entry.shape[1:]) if entry.shape else ()
        tensor = torch.empty(shape, dtype=entry.dtype)
        width = math.prod(entry.shape[1:]) * entry.dtype.itemsize
        self._fill(tensor, entry.start + first * width, name)
        return tensor

    def _fill(self, tensor: Tensor, start: int, name: str) -> None:
        if not tensor.numel():
            return
        view = as_bytes(tensor)
        try:
            with self.path.open("rb", buffering=0) as stream:
                stream.seek(start)
                done = 0
                while done < len(view):
                    count = stream.readinto(view[done:])
                    if not count:
                        raise CheckpointError(f"{self.path} ends within {name}; copy or write the checkpoint again")
                    done += count
        except FileNotFoundError:
            raise CheckpointError(f"{self.path} is missing; copy or write the checkpoint again") from None

    def _entries(self) -> dict[str, Entry]:
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                if size < 8 or length > min(MOST_HEADER, size - 8):
                    raise self._damaged(f"its header claims {length:,} bytes, the file has {size:,}")
                page = json.loads(stream.read(length))
        except FileNotFoundError:
            raise CheckpointError(f"{self.path} is missing; copy or write the checkpoint again") from None
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its header is no JSON: {error}") from None
        if not isinstance(page, dict):
            raise self._damaged("its header is no table")
        page.pop("__metadata__", None)
        found = dict(self._checked(page, 8 + length))
        self._covers(found, 8 + length, size)
        return found

    def _checked(self, page: dict[str, Any], base: int) -> Iterator[tuple[str, Entry]]:
        for name, said in page.items():
            try:
                dtype, shape = DTYPES[said["dtype"]], tuple(said["shape"])
                start, stop = said["data_offsets"]
                sound = all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop))
                entry = Entry(dtype, shape, base + start)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._damaged(f"its header says of {name}: {said!r:.80} ({error!r})") from None
            if not name.isprintable():
                raise self._damaged(f"a tensor is called {name!r:.80}")
            if not sound or entry.bytes != stop - start:
                raise self._damaged(
                    f"{name} of shape {shape} and {said['dtype']} cannot lie in bytes {start} to {stop}"
                )
            yield name, entry

    def _covers(self, found: dict[str, Entry], base: int, size: int) -> None:
        """Every byte behind the header belongs to one tensor."""
        place = base
        for name, entry in sorted(found.items(), key=lambda item: (item[1].start, item[1].bytes)):
            if entry.start != place:
                raise self._damaged(f"{name} begins at byte {entry.start:,}, expected {place:,}")
            place += entry.bytes
        if place != size:
            raise self._damaged(f"it has {size:,} bytes, its header accounts for {place:,}")

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged ({why}); copy or write the checkpoint again")
