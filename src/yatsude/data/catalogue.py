"""The sources of text that have a name, and what a `file:` or `hf:` source is.

`file:PATH#KIND` names the kind of text in the files; without it they are of the kind "own".
"""

import dataclasses
import re
from pathlib import Path

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

    @property
    def path(self) -> Path:
        """Where the files of a `file:` source lie."""
        path = self.name.partition(":")[2]
        return Path(path.removesuffix(f"#{self.domain}") if _named_domain(path) else path).expanduser()

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
        domain = _named_domain(rest) or "own"
        return Source(name=name, kind="files", domain=domain, licence=own.licence, attribution=own.attribution)
    if colon and rest and kind == "hf":
        repository = rest.partition(":")[0]
        url = f"https://huggingface.co/datasets/{repository}"
        return Source(name=name, kind="hub", domain="hub", licence="unknown", attribution=repository, url=url)
    raise DataError(
        f"no source is called '{name}'{nearest(name, [source.name for source in SOURCES])}; own texts are file:PATH,"
        " hub data sets hf:OWNER/NAME"
    )


def _named_domain(path: str) -> str:
    """The word after # in `texts/law/#law`; "" without one, or where that is the name of a file."""
    match = re.search(r"#([\w-]+)$", path)
    return match[1] if match and not Path(path).expanduser().exists() else ""
