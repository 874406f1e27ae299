"""Models that a model was made from: their licences and notices go along as files, in `bases/NAME`.

A run's own training is no base. Whatever comes from elsewhere is one, and is refused without the text of its licence.
"""

import dataclasses
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from yatsude import manifest
from yatsude.errors import CheckpointError
from yatsude.files import sha256_of
from yatsude.manifest import Licence

__all__ = ["FOLDER", "Base", "carry", "front_matter", "refuse_without_licence"]

FOLDER = "bases"
MODEL = "model:"
"""Begins the source of a licence that is a model's."""
OWN = ("tokenizer", "train", "tune")
"""Stages whose output is the run's own, not somebody's model."""
TEXTS = re.compile(r".*(LICEN[SC]E|COPYING|NOTICE|THIRD[-_ ]PARTY|POLICY|ATTRIBUTION)[^/]*", re.IGNORECASE)
LICENCES = re.compile(r".*(LICEN[SC]E|COPYING)", re.IGNORECASE)
NO_TEXT = (".py", ".json", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Base:
    """A model that another was made from: its licence as its card spells it ("other" if it does not), and the text."""

    name: str
    spdx: str
    text: Path

    @property
    def entry(self) -> Licence:
        """As manifests and cards list it."""
        return Licence(source=f"{MODEL}{self.name}", licence=self.spdx, attribution=f"the authors of {self.name}")


def carry(sources: Iterable[Path], draft: Path, licence: Path | None = None) -> list[Base]:
    """Copy the licence texts of all bases behind `sources` into `draft`; the bases come back, those of bases aside.

    `licence` is a text for those that lack one.
    """
    found: list[Base] = []
    for source in sources:
        for inner in sorted((source / FOLDER).glob("*")):
            _copied(inner, draft, inner.name)
        if _is_own(source):
            found += _learned_from(source, draft)
        else:
            refuse_without_licence(source, licence)
            found.append(_taken(source, draft, licence))
    return found


def refuse_without_licence(source: Path, licence: Path | None = None) -> None:
    """Refuse a base without the text of its licence, before any work is done."""
    if licence is None and not _is_own(source) and not _licence(source):
        raise CheckpointError(
            f"{source} has no LICENSE file; what is made from it must carry the text: put it there (convert, upcycle,"
            " merge and extend also take --i-have-the-licence FILE)"
        )


def front_matter(source: Path) -> dict[str, str]:
    """The plain lines that a model card begins with, by their key."""
    return dict(_front_lines(source))


def _is_own(source: Path) -> bool:
    return (source / manifest.NAME).is_file() and manifest.read(source).stage in OWN


def _texts(source: Path) -> list[Path]:
    files = (path for path in source.glob("*") if path.is_file() and path.suffix not in NO_TEXT)
    return sorted(path for path in files if TEXTS.fullmatch(path.name) and path.read_bytes().strip())


def _licence(source: Path) -> Path | None:
    return next((path for path in _texts(source) if LICENCES.match(path.name)), None)


def _learned_from(source: Path, draft: Path) -> Iterator[Base]:
    """The bases of a run's own training, whose texts are in the draft already."""
    if (source / manifest.NAME).is_file():
        for entry in manifest.read(source).licences:
            name = entry.source.removeprefix(MODEL)
            if entry.source.startswith(MODEL) and (text := _licence(draft / FOLDER / name)):
                yield Base(name, entry.licence, text)


def _taken(source: Path, draft: Path, licence: Path | None) -> Base:
    name = source.resolve().name
    place = _copied(source, draft, name)
    if not _licence(place) and licence is not None:
        try:
            shutil.copyfile(licence, place / "LICENSE")
        except OSError as error:
            raise CheckpointError(f"--i-have-the-licence {licence}: {error.strerror}; give a file of text") from None
    text = _licence(place)
    if text is None:
        raise CheckpointError(f"--i-have-the-licence {licence} is empty; give a file with the text of the licence")
    said = front_matter(source)
    return Base(place.name, said.get("license_name") or said.get("license") or "other", text)


def _copied(source: Path, draft: Path, name: str) -> Path:
    """Copy the texts of one base to a place of its own: two folders of one name may be two models."""
    texts = _texts(source)
    place, number = draft / FOLDER / name, 2
    while place.is_dir() and _sums(_texts(place)) != _sums(texts):
        place, number = draft / FOLDER / f"{name}-{number}", number + 1
    place.mkdir(parents=True, exist_ok=True)
    for path in texts:
        shutil.copyfile(path, place / path.name)
    return place


def _sums(texts: Iterable[Path]) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in texts}


def _front_lines(source: Path) -> Iterator[tuple[str, str]]:
    card = source / "README.md"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines() if card.is_file() else []
    if lines[:1] != ["---"]:
        return
    for line in lines[1:]:
        if line.strip() == "---":
            return
        key, colon, value = line.partition(":")
        if colon and not key.startswith((" ", "-")):
            yield key.strip(), value.strip().strip("\"'")
