"""One safetensors file, written whole. No pickle."""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["save"]


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
