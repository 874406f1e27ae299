"""Size and SHA-256 of every file of a state, written last: what has none is not complete."""

import hashlib
import json
import os
from pathlib import Path

from yatsude.files import sha256_of

__all__ = ["COMPLETE", "PAGE", "TENSORS", "Sums", "damage", "put"]

Sums = dict[str, tuple[int, str]]
"""Name of a file -> its size and SHA-256."""
PAGE, COMPLETE = "page.json", "complete.json"
TENSORS = "tensors.safetensors"
"""All tensors, of a state that one process has written."""


def put(path: Path, text: str) -> tuple[int, str]:
    """Write a small file that is on disk afterwards; its size and SHA-256."""
    content = text.encode()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return len(content), hashlib.sha256(content).hexdigest()


def damage(folder: Path, rank: int = 0, ranks: int = 1) -> str:
    """What is wrong with a state, in a few words; each of several ranks looks at its share of the files."""
    try:
        sums: Sums = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        for name in sorted({PAGE, *sums})[rank::ranks]:
            size, digest = sums[name]
            have = (folder / name).stat().st_size
            if have != size:
                return f"{name} has {have} bytes, expected {size}"
            if sha256_of(folder / name) != digest:
                return f"{name} is not what was written (sha256 {digest[:12]}…)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError) as error:
        return f"{COMPLETE} is damaged ({error})"
    return ""
