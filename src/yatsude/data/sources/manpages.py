"""Japanese manual pages out of the Debian packages manpages-ja and manpages-ja-dev.

The packages are unpacked as data: no script of theirs runs, nothing is installed. apt-get compares what it fetches with
the signed index of the distribution; the sums are remembered here, so that a warm cache needs neither apt nor network.
"""

import contextlib
import gzip
import io
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

import zstandard

from yatsude import net
from yatsude.data import cache
from yatsude.data.catalogue import Source
from yatsude.data.documents import Document
from yatsude.data.sources import roff
from yatsude.errors import DataError, MachineError, NetworkError
from yatsude.files import new_folder

__all__ = ["fetch", "read"]

PACKAGES = ("manpages-ja", "manpages-ja-dev")
PAGES = "./usr/share/man/ja/"


def fetch(source: Source, folder: Path) -> list[Path]:
    """The .deb files in the cache folder, by apt-get where they are not there yet.

    Raises MachineError where this machine has no apt-get, NetworkError where it cannot fetch.
    """
    kept = _kept(folder)
    if len(kept) == len(PACKAGES) and all(cache.check(path) for path in kept):
        return kept
    if not shutil.which("apt-get"):
        raise MachineError("this machine has no apt-get (it comes with Debian and its relatives); leave the source out")
    with new_folder(folder / "download") as draft:
        _download(source, draft, folder / "apt")
        for path in draft.glob("*.deb"):
            cache.remember(path)
    return _kept(folder)


def read(source: Source, folder: Path) -> Iterator[Document]:
    """One document a page, its macros taken away; pages of a dialect that is not read are left out."""
    for package in fetch(source, folder):
        for name, page in _pages(package):
            if roff.is_man(page):
                text = roff.prose(page)
                if text:
                    yield Document(id=name, text=text, source=source.name, domain=source.domain)


def _kept(folder: Path) -> list[Path]:
    """The packages that are there, in the order of their names above."""
    return [path for name in PACKAGES for path in sorted((folder / "download").glob(f"{name}_*.deb"))]


def _download(source: Source, draft: Path, apt: Path) -> None:
    """Ask apt-get; where its package lists are missing (a fresh container), fetch lists of our own first."""
    purpose = f"fetch {source.name} ({source.bytes / 1e6:.0f} MB)"
    try:
        net.run_client(["apt-get", "download", *PACKAGES], purpose=purpose, folder=draft)
    except NetworkError:
        try:
            for place in ("lists", "archives"):
                (apt / place / "partial").mkdir(parents=True, exist_ok=True)
            own = ["-o", f"Dir::State::Lists={apt / 'lists'}", "-o", f"Dir::Cache={apt}"]
            net.run_client(["apt-get", *own, "update"], purpose=purpose, folder=draft)
            net.run_client(["apt-get", *own, "download", *PACKAGES], purpose=purpose, folder=draft)
        finally:
            shutil.rmtree(apt, ignore_errors=True)


def _pages(package: Path) -> Iterator[tuple[str, str]]:
    """Name and source of each page, such as ("ls.1", ".TH LS …"); links to other pages are passed over."""
    try:
        with _data(package) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() and member.name.startswith(PAGES) else None
                if content is not None and member.name.endswith(".gz"):
                    page = gzip.decompress(content.read()).decode("utf-8", "replace")
                    yield PurePosixPath(member.name).stem, page
    except (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, zstandard.ZstdError, EOFError) as error:
        raise DataError(f"{package} is damaged ({error}); remove it and run the same command again") from None


@contextlib.contextmanager
def _data(package: Path) -> Iterator[IO[bytes]]:
    """The tar stream inside a .deb: an ar archive whose member data.tar.* holds the files."""
    with package.open("rb") as stream:
        magic = stream.read(8)
        while header := stream.read(60):
            name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58]
            if magic != b"!<arch>\n" or not size.strip().isdigit():
                break
            if name.startswith("data.tar"):
                with _unpacked(name, io.BytesIO(stream.read(int(size)))) as plain:
                    yield plain
                return
            stream.seek(int(size) + int(size) % 2, io.SEEK_CUR)  # members begin at even offsets
    raise DataError(f"{package} is not a Debian package with a data.tar; remove it and run the same command again")


def _unpacked(name: str, packed: io.BytesIO) -> IO[bytes]:
    if name.endswith(".xz"):
        return lzma.open(packed)
    if name.endswith(".gz"):
        return cast(IO[bytes], gzip.open(packed))
    if name.endswith(".zst"):
        return cast(IO[bytes], zstandard.ZstdDecompressor().stream_reader(packed))
    return packed
