"""From the name of a source to its documents."""

from collections.abc import Callable, Iterator
from pathlib import Path

from yatsude.data.catalogue import Source
from yatsude.data.documents import Document
from yatsude.data.sources import files, hub, manpages, tatoeba
from yatsude.manifest import Licence

__all__ = ["licence", "read"]

_READERS: dict[str, Callable[[Source, Path], Iterator[Document]]] = {
    "tatoeba": tatoeba.read,
    "manpages": manpages.read,
    "files": files.read,
    "hub": hub.read,
}


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Documents of a source, fetched into `folder` where need be, in the same order every time."""
    return _READERS[source.kind](source, folder)


def licence(source: Source, folder: Path) -> Licence:
    """Terms of a source that has been read; a hub data set states its own."""
    return hub.licence(source, folder) if source.kind == "hub" else source.page()
