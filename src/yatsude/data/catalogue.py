"""The sources of text that have a name, and what a `file:` or `hf:` source is."""

import dataclasses

from yatsude.errors import DataError, nearest
from yatsude.manifest import Licence, own_files

__all__ = ["SOURCES", "Source", "find"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where text comes from and under what terms."""

    name: str
    kind: str
    """Which reader of `data/sources/` fetches and reads it."""
    domain: str
    """What kind of text it is, such as "dialogue"; the split and reports go by it."""
    licence: str
    attribution: str
    url: str = ""
    bytes: int = 0
    """Size of the download; 0 where there is none or it is not known."""
    optional: bool = False
    """Left out with a printed reason where it cannot be had."""

    @property
    def label(self) -> str:
        """Its name in manifests, which are passed on: of own files, without the folders they lie in."""
        return own_files(self.name).source if self.kind == "files" else self.name

    def page(self) -> Licence:
        """What the manifest says of this source."""
        return Licence(source=self.label, licence=self.licence, attribution=self.attribution, url=self.url)


SOURCES = (
    Source(
        name="tatoeba-ja",
        kind="tatoeba",
        domain="dialogue",
        licence="CC-BY-2.0-FR",
        attribution="Tatoeba contributors",
        url="https://tatoeba.org",
        bytes=67_429_125,
    ),
    Source(
        name="manpages-ja",
        kind="manpages",
        domain="technical",
        licence="a free licence for each page (see copyright in the Debian packages manpages-ja and manpages-ja-dev)",
        attribution="the authors of the manual pages, and the JM Project for the translation",
        url="https://linuxjm.sourceforge.io",
        bytes=6_348_244,
        optional=True,
    ),
)


def find(name: str) -> Source:
    """The source of that name; raises DataError with the nearest known name."""
    for source in SOURCES:
        if source.name == name:
            return source
    kind, colon, rest = name.partition(":")
    if colon and rest and kind == "file":
        own = own_files(name)
        return Source(name=name, kind="files", domain="own", licence=own.licence, attribution=own.attribution)
    if colon and rest and kind == "hf":
        repository = rest.partition(":")[0]
        url = f"https://huggingface.co/datasets/{repository}"
        return Source(name=name, kind="hub", domain="hub", licence="unknown", attribution=repository, url=url)
    raise DataError(
        f"no source is called '{name}'{nearest(name, [source.name for source in SOURCES])}; own texts are file:PATH,"
        " hub data sets hf:OWNER/NAME"
    )
