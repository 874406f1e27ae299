"""Downloads that stay: one folder a source, each file with the SHA-256 that it must keep."""

from pathlib import Path

from yatsude.errors import ChecksumError
from yatsude.files import new_file, sha256_of

__all__ = ["check", "folder", "remember"]


def folder(cache: str, name: str) -> Path:
    """Folder of one source inside the cache (`~` is the home folder)."""
    return Path(cache).expanduser().absolute() / name


def remember(path: Path) -> None:
    """Note a file's SHA-256 beside it: for files whose sum nobody published, as they arrived."""
    with new_file(_note(path)) as draft:
        draft.write_text(f"{sha256_of(path)}  {path.name}\n", encoding="utf-8")


def check(path: Path, sha256: str | None = None) -> bool:
    """Whether the file is there and whole, by `sha256` or by what was remembered.

    A file with other bytes is removed, so that the next call fetches it anew, and ChecksumError names both sums.
    """
    if not path.is_file():
        return False
    if sha256 is None:
        if not _note(path).is_file():
            return False
        sha256 = _note(path).read_text(encoding="utf-8").partition(" ")[0]
    got = sha256_of(path)
    if got == sha256:
        return True
    path.unlink()
    raise ChecksumError(f"{path} has sha256 {got}, expected {sha256}; it was removed: run the same command again")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
