"""Where a model came from: the manifests of every stage behind it, their licences, and what must be said of them."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from yatsude import manifest
from yatsude.errors import CheckpointError
from yatsude.manifest import Licence, Manifest

__all__ = ["Stage", "chain", "licences", "notice"]

FREE_OF_CREDIT = ("cc0", "public domain", "unlicense")
UNSAID = ("", "unknown", "none", "?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One folder behind a model; `manifest` is none where only its checksum is known."""

    stage: str
    manifest_sha256: str
    manifest: Manifest | None
    path: Path | None


def chain(inputs: Iterable[Path]) -> list[Stage]:
    """All stages behind the input folders, nearest first, each once.

    A stage's own inputs are looked for where it read them; one that is not there or has changed is listed by checksum.
    """
    waiting = [_stage(path) for path in inputs]
    found: dict[str, Stage] = {}
    while waiting:
        stage = waiting.pop(0)
        if stage.manifest_sha256 in found:
            continue
        found[stage.manifest_sha256] = stage
        if stage.manifest and stage.path:
            waiting += [_input(stage.path, entry) for entry in stage.manifest.inputs]
    return list(found.values())


def licences(stages: Iterable[Stage], bases: Iterable[Licence] = ()) -> list[Licence]:
    """Every licence behind stages and bases, each once; a source without licence or credit stops the export here."""
    found = (entry for stage in stages if stage.manifest for entry in stage.manifest.licences)
    merged = list(dict.fromkeys([*found, *bases]))
    if not merged:
        raise CheckpointError(
            "no source and no licence is recorded behind this model; give the folders it was made from"
        )
    for entry in merged:
        licence = entry.licence.strip().lower()
        if licence in UNSAID:
            raise CheckpointError(
                f"source '{entry.source}' has no licence; a model trained on it is not exported: find out the licence,"
                " or train without this source"
            )
        if not entry.attribution.strip() and not licence.startswith(FREE_OF_CREDIT):
            raise CheckpointError(
                f"source '{entry.source}' ({entry.licence}) names nobody to credit; add its attribution to the source"
            )
    return merged


def notice(name: str, entries: Iterable[Licence]) -> str:
    """Text of the NOTICE file: whom to credit for what."""
    blocks = [f"{name}\nMade with yatsude. The weights were made from the following sources.\n"]
    for entry in entries:
        lines = (entry.source, f"  Licence: {entry.licence}", f"  Credit: {entry.attribution or 'not required'}")
        blocks.append("\n".join((*lines, f"  {entry.url}") if entry.url else lines) + "\n")
    return "\n".join(blocks)


def _stage(path: Path) -> Stage:
    page = manifest.read(path)
    return Stage(stage=page.stage, manifest_sha256=manifest.digest(page), manifest=page, path=path)


def _input(path: Path, entry: manifest.Input) -> Stage:
    folder = Path(os.path.normpath(path / entry.folder))
    found = _stage(folder) if (folder / manifest.NAME).is_file() else None
    if found and found.manifest_sha256 == entry.manifest_sha256:
        return found
    return Stage(stage=entry.stage, manifest_sha256=entry.manifest_sha256, manifest=None, path=None)
