"""Models that a model was made from: their licences and notices go along as files, in `bases/NAME`.

A run's own training is no base. Whatever comes from elsewhere is one, and is refused without the text of its licence.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from yatsude import manifest
from yatsude.errors import CheckpointError
from yatsude.manifest import Licence

__all__ = ["FOLDER", "carry", "refuse_without_licence"]

FOLDER = "bases"
OWN = ("tokenizer", "train", "tune")
"""Stages whose output is the run's own, not somebody's model."""
TEXTS = re.compile(r"(LICEN[SC]E|COPYING|NOTICE|THIRD[-_ ]PARTY)[^/]*", re.IGNORECASE)
LICENCES = re.compile(r"(LICEN[SC]E|COPYING)", re.IGNORECASE)


def carry(sources: Iterable[Path], draft: Path, licence: Path | None = None) -> list[Licence]:
    """Copy the licence texts of all bases behind `sources` into `draft`; what is to be said of them comes back.

    `licence` is a text for those that lack one.
    """
    entries: dict[str, Licence] = {}
    for source in sources:
        for inner in sorted((source / FOLDER).glob("*")):
            shutil.copytree(inner, draft / FOLDER / inner.name, dirs_exist_ok=True)
        refuse_without_licence(source, licence)
        if not _is_own(source):
            entries[source.name] = _taken(source, draft, licence)
    return list(entries.values())


def refuse_without_licence(source: Path, licence: Path | None = None) -> None:
    """Refuse a base without the text of its licence, before any work is done."""
    if licence is None and not _is_own(source) and not any(LICENCES.match(path.name) for path in _texts(source)):
        raise CheckpointError(
            f"{source} has no LICENSE file; what is made from it must carry the text: put it there, or give it with"
            " --i-have-the-licence FILE"
        )


def _texts(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_file() and TEXTS.fullmatch(path.name))


def _is_own(source: Path) -> bool:
    return (source / manifest.NAME).is_file() and manifest.read(source).stage in OWN


def _taken(source: Path, draft: Path, licence: Path | None) -> Licence:
    name = source.resolve().name
    place = draft / FOLDER / name
    texts = _texts(source)
    place.mkdir(parents=True, exist_ok=True)
    for path in texts:
        shutil.copyfile(path, place / path.name)
    if not any(LICENCES.match(path.name) for path in texts) and licence is not None:
        try:
            shutil.copyfile(licence, place / "LICENSE")
        except OSError as error:
            raise CheckpointError(
                f"--i-have-the-licence {licence}: {error.strerror}; give a file with its text"
            ) from None
    said = dict(_front_matter(source))
    return Licence(
        source=f"model:{name}",
        licence=said.get("license_name") or said.get("license") or f"see {FOLDER}/{name}",
        attribution=f"the authors of {name}",
    )


def _front_matter(source: Path) -> Iterator[tuple[str, str]]:
    """The plain lines that a model card begins with."""
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
