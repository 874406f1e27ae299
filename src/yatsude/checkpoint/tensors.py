"""One safetensors file, written whole. No pickle."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from yatsude.checkpoint.shard import DTYPES, as_bytes

__all__ = ["save", "stream"]

AT_ONCE = 4 << 20
"""Bytes that are summed and written at once."""


def save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of any device; those that are views or share memory are written out separately."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        storage = flat.untyped_storage()
        shares = storage.data_ptr() in seen or storage.nbytes() != flat.nbytes
        plain[name] = flat.clone() if shares else flat
        seen.add(storage.data_ptr())
    try:
        path.touch()  # with the permissions that any new file gets here
        mode = path.stat().st_mode & 0o777
        save_file(plain, path, metadata={"format": "pt"})
        path.chmod(mode)  # safetensors renames a file of its own over it, which only the owner may read
    except SafetensorError as error:  # it wraps what the system said
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def stream(path: Path, tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """Write tensors one after the other, and flush them to disk; size and SHA-256 of the file, which is not read again.

    Other threads go on meanwhile. An error of the disk names the file.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("wb", buffering=0) as file:
            for content in _contents(tensors):
                for start in range(0, len(content), AT_ONCE):
                    piece = content[start : start + AT_ONCE]
                    digest.update(piece)
                    size += len(piece)
                    while len(piece):
                        piece = piece[file.write(piece) :]
            os.fsync(file.fileno())
    except OSError as error:  # what a write says has no name
        raise OSError(error.errno, error.strerror, str(path)) from error
    return size, digest.hexdigest()


def _contents(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    yield memoryview(_header(tensors))
    for tensor in tensors.values():
        yield as_bytes(tensor.detach().cpu().contiguous())


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    """What a file begins with: a length, and where each tensor lies, filled up to a multiple of 8 bytes."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    page, start = {}, 0
    for name, tensor in tensors.items():
        stop = start + tensor.nbytes
        page[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps({"__metadata__": {"format": "pt"}, **page}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
