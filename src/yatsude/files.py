"""Writing so that a reader finds either the old thing or the new one, never half of one.

A file or folder is built beside its final place and renamed over it when it is complete and on disk.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from yatsude.errors import MachineError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "copy_present",
    "disk_full_is_an_error",
    "new_file",
    "new_folder",
    "refused",
    "sha256_of",
    "state_of",
    "tidy",
]


@contextlib.contextmanager
def disk_full_is_an_error(place: Path) -> Iterator[None]:
    """Turn "no space left on device" into one line that names the place and the bytes that are free."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(_existing_parent(place)).free
        raise MachineError(
            f"disk full while writing {place}: {free / 1e6:.0f} MB free; make room and run the same command again"
        ) from error


@contextlib.contextmanager
def held(place: Path) -> Iterator[None]:
    """Keep other processes from holding a folder meanwhile; a file system without locks keeps nobody away."""
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        if fcntl:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MachineError(
                    f"{place} is in use by another process; wait for it, end it, or give another --run"
                ) from None
            except OSError:
                pass
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_file(path: Path, replace: bool = True) -> Iterator[Path]:
    """Yield a path to write to; on success it is flushed to disk and takes the place of `path`.

    Without `replace` there must be nothing at `path`, when it begins and when it ends.

    >>> with new_file(Path("figures.json")) as draft:
    ...     draft.write_text("{}")
    """
    _refuse_what_stands(path, replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with disk_full_is_an_error(path):
            yield draft
            _flush(draft)
            _refuse_what_stands(path, replace)
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path, replace: bool = True, flushed: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it takes the place of `path` and the old one is removed.

    Without `replace` there must be nothing at `path`, when it begins and when it ends. `flushed` says that whoever
    fills it sees to it that its files are on disk.
    """
    _refuse_what_stands(path, replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    draft.mkdir()
    try:
        with disk_full_is_an_error(path):
            yield draft
            for file in () if flushed else draft.rglob("*"):
                if file.is_file():
                    _flush(file)
            _refuse_what_stands(path, replace)
            if path.exists():
                path.replace(old)
            draft.replace(path)
    finally:
        if not path.exists() and old.exists():
            old.replace(path)
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def tidy(path: Path) -> None:
    """Put the folder back that a killed process had moved aside from `path`, and remove its drafts."""
    for rest in path.parent.iterdir():
        match = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)\.(part|old)", rest.name)
        if not match or _is_at_work(int(match[1])):
            continue
        if match[2] == "old" and not path.exists():
            rest.replace(path)
        shutil.rmtree(rest, ignore_errors=True)


def refused(error: Exception) -> str:
    """What the disk refused, where, and why, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    return str(error) or type(error).__name__


def copy_present(names: Iterable[str], source: Path, target: Path) -> None:
    """Copy those of the named files that `source` has to the folder `target`."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def state_of(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, bytes and time (ns) of files, at a glance: another state is other content, most likely."""
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _refuse_what_stands(path: Path, replace: bool) -> None:
    if not replace and os.path.lexists(path):
        raise MachineError(f"{path} exists; name a place where nothing is, or remove it first")


def _is_at_work(process: int) -> bool:
    """Whether another process of this number is alive."""
    if process == os.getpid() or os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _existing_parent(place: Path) -> Path:
    while not place.exists():
        place = place.absolute().parent
    return place
