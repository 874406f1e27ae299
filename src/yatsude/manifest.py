"""What a stage wrote: its inputs, files, licences, counts, recipe and code.

Each output folder holds one `manifest.json`. Stages hand folders to each other, and licences travel along: a manifest
carries those of every input, down to the sources of the text.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from yatsude import __version__
from yatsude.errors import DataError
from yatsude.files import new_file, sha256_of

__all__ = [
    "File",
    "Input",
    "Licence",
    "Manifest",
    "check",
    "digest",
    "is_current",
    "made_from",
    "own_files",
    "read",
    "write",
]

NAME = "manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Licence:
    """Under what terms a source may be used, and whom to credit."""

    source: str
    licence: str
    attribution: str
    url: str = ""


def own_files(source: str) -> Licence:
    """Terms of a `file:` source. Licences are passed on with a model: they name no folder of this machine."""
    name = f"file:{Path(source.removeprefix('file:')).name}"
    return Licence(source=name, licence="owner's own", attribution="the owner of the files")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """A folder that the stage read, as seen from the one it wrote, and the `digest` of its manifest."""

    stage: str
    folder: str
    manifest_sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """One written file, relative to the folder; size in bytes."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The page that explains a folder."""

    stage: str
    version: str
    created: str
    recipe_sha256: str
    inputs: tuple[Input, ...]
    licences: tuple[Licence, ...]
    counts: dict[str, int | float | str]
    files: dict[str, File]


_ADAPTER = TypeAdapter(Manifest)


def write(
    folder: Path,
    stage: str,
    *,
    inputs: Iterable[Path] = (),
    licences: Iterable[Licence] = (),
    counts: Mapping[str, int | float | str] | None = None,
    recipe_sha256: str = "",
) -> Manifest:
    """Describe all files now in `folder` (hidden ones aside) and write the manifest; inputs add their licences."""
    sources = [(path, read(path)) for path in inputs]
    merged = dict.fromkeys([*(entry for _, m in sources for entry in m.licences), *licences])
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME and not _hidden(p, folder))
    manifest = Manifest(
        stage=stage,
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe_sha256=recipe_sha256,
        inputs=tuple(
            Input(stage=m.stage, folder=os.path.relpath(path, folder), manifest_sha256=digest(m)) for path, m in sources
        ),
        licences=tuple(merged),
        counts=dict(counts or {}),
        files={str(p.relative_to(folder)): File(bytes=p.stat().st_size, sha256=sha256_of(p)) for p in files},
    )
    with new_file(folder / NAME) as draft:
        draft.write_bytes(_ADAPTER.dump_json(manifest, indent=1))
    return manifest


def read(folder: Path, stage: str | None = None) -> Manifest:
    """Read a folder's manifest; with `stage`, the folder must be the output of that stage."""
    path = folder / NAME
    try:
        manifest = _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError:
        want = f"the output of 'yatsude {stage}'" if stage else "an output folder"
        raise DataError(f"no {NAME} in {folder}: expected {want}; check the path or run that stage first") from None
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({error.errors()[0]['msg']}); run the stage that wrote it again") from None
    if stage is not None and manifest.stage != stage:
        raise DataError(f"{folder} was written by '{manifest.stage}', expected the output of 'yatsude {stage}'")
    return manifest


def is_current(folder: Path, stage: str, recipe_sha256: str, inputs: Iterable[Path] = ()) -> bool:
    """Whether `folder` is the finished output of this stage, with these settings, from these very inputs."""
    if not (folder / NAME).is_file():
        return False
    manifest = read(folder)
    fresh = all((path / NAME).is_file() and made_from(manifest, path) for path in inputs)
    return manifest.stage == stage and manifest.recipe_sha256 == recipe_sha256 and fresh


def digest(manifest: Manifest) -> str:
    """Name what a folder holds: its stage and the bytes of its files, whenever and from wherever it was written."""
    lines = [manifest.stage, *(f"{file.sha256}  {name}" for name, file in sorted(manifest.files.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def made_from(manifest: Manifest, folder: Path) -> bool:
    """Whether the inputs of `manifest` name what `folder` holds now."""
    return digest(read(folder)) in {entry.manifest_sha256 for entry in manifest.inputs}


def check(folder: Path, manifest: Manifest, pattern: str = "*") -> None:
    """Compare every file of that pattern with its recorded size and SHA-256; the first that differs is an error."""
    again = f"run 'yatsude {manifest.stage}' again"
    for name, file in manifest.files.items():
        path = folder / name
        if not path.match(pattern):
            continue
        if not path.is_file():
            raise DataError(f"{path} is missing; the manifest lists it with {file.bytes} bytes: {again}")
        if path.stat().st_size != file.bytes or sha256_of(path) != file.sha256:
            raise DataError(f"{path} is not what was written ({file.bytes} bytes, sha256 {file.sha256[:12]}…): {again}")


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
