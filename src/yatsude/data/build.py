"""The data stage: from named sources to a folder of documents with a manifest.

    fetch ─▶ read ─▶ clean ─▶ find near-twins ─▶ set whole clusters aside ─▶ shuffle ─▶ Parquet

All documents are held in memory, about 1 GB for each 12 million characters.
"""

import dataclasses
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from yatsude import manifest, recipe
from yatsude.data import cache, reading
from yatsude.data.catalogue import Source, find
from yatsude.data.clean import clean
from yatsude.data.documents import HELD_OUT, TRAIN, VALIDATION, Document, write
from yatsude.data.settings import DataSettings
from yatsude.data.sources import files
from yatsude.data.split import set_aside
from yatsude.data.twins import clusters
from yatsude.errors import DataError, MachineError, NetworkError, YatsudeError
from yatsude.files import new_folder
from yatsude.progress import Bar, bar, say

__all__ = ["SourceCounts", "Summary", "build", "digest", "unreached"]

UNREACHED = ".unreached"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceCounts:
    """What became of one source: documents_in = documents + the sum of `dropped`."""

    name: str
    documents_in: int
    documents: int
    characters: int
    dropped: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What was built, for the screen."""

    folder: Path
    sources: tuple[SourceCounts, ...]
    skipped: dict[str, str]
    """Optional sources that could not be had, and why."""
    unreached: tuple[str, ...]
    """Those of them that the network kept away: another time they may be had."""
    train_documents: int
    train_characters: int
    validation_documents: int
    validation_characters: int
    held_out_documents: int
    held_out_characters: int
    twin_share: float
    """Share of the documents that have a near-twin, 0 to 1."""
    seconds: float


def build(settings: DataSettings, folder: Path) -> Summary:
    """Fetch, clean, split and write the sources to `folder`, which is replaced only when all is done.

    Raises DataError (a source is unknown, damaged or empty), NetworkError and MachineError.
    """
    start = time.monotonic()
    sources = [find(name) for name in dict.fromkeys(settings.sources)]
    origin = digest(settings)
    texts, counts, failures = _gather(sources, settings)
    skipped = {name: str(error) for name, error in failures.items()}
    if not texts:
        raise DataError(f"no documents left of {', '.join(settings.sources)}: {_story(counts, skipped)}")
    say(f"looking for near-twins among {len(texts):,} documents")
    labels = clusters([document.text for document in texts], settings.twin_similarity)
    validation, held_out = set_aside(
        texts,
        labels,
        validation=settings.validation_fraction,
        held_out=settings.held_out_fraction,
        seed=settings.seed,
    )
    if (validation & held_out).any():
        say("too few different texts for three parts: validation is the held-out text itself")
    order = np.random.default_rng(settings.seed).permutation(len(texts))
    masks = {TRAIN: ~(validation | held_out), VALIDATION: validation, HELD_OUT: held_out}
    parts = {name: [texts[i] for i in order if mask[i]] for name, mask in masks.items()}
    summary = Summary(
        folder=folder,
        sources=counts,
        skipped=skipped,
        unreached=tuple(name for name, error in failures.items() if isinstance(error, NetworkError)),
        train_documents=len(parts[TRAIN]),
        train_characters=_characters(parts[TRAIN]),
        validation_documents=len(parts[VALIDATION]),
        validation_characters=_characters(parts[VALIDATION]),
        held_out_documents=len(parts[HELD_OUT]),
        held_out_characters=_characters(parts[HELD_OUT]),
        twin_share=round(float(np.mean(np.bincount(labels)[labels] > 1)), 4),
        seconds=round(time.monotonic() - start, 1),
    )
    pages = [reading.licence(s, cache.folder(settings.cache, _safe(s))) for s in sources if s.name not in skipped]
    with new_folder(folder) as draft:
        with bar("writing documents", sum(map(len, parts.values())), "documents") as moving:
            for name, part in parts.items():
                write(draft / name / "part-00000.parquet", _counted(part, moving))
        recipe.write(draft / "recipe.toml", {"data": settings})
        manifest.write(draft, "data", licences=pages, counts=_numbers(summary), recipe_sha256=origin)
    return dataclasses.replace(summary, seconds=round(time.monotonic() - start, 1))


def digest(settings: DataSettings) -> str:
    """Name what the stage would write now: the settings, and the state of the user's own files among the sources."""
    found = [find(name) for name in settings.sources]
    return recipe.digest({"data": settings}, [files.state(source) for source in found if source.kind == "files"])


def unreached(folder: Path) -> list[str]:
    """Optional sources that the network kept out of a data folder."""
    return [name.removesuffix(UNREACHED) for name in manifest.read(folder).counts if name.endswith(UNREACHED)]


def _gather(
    sources: Sequence[Source], settings: DataSettings
) -> tuple[list[Document], tuple[SourceCounts, ...], dict[str, YatsudeError]]:
    """Clean documents of all sources, counts of each source that was read, and why the others were skipped."""
    texts: list[Document] = []
    counts: list[SourceCounts] = []
    skipped: dict[str, YatsudeError] = {}
    seen: set[bytes] = set()
    for source in sources:
        dropped: Counter[str] = Counter()
        try:
            with bar(f"reading {source.name}", unit="documents") as moving:
                found = _counted(reading.read(source, cache.folder(settings.cache, _safe(source))), moving)
                kept = list(clean(found, settings, seen, dropped))
        except (MachineError, NetworkError) as error:
            if not source.optional:
                raise
            skipped[source.name] = error
            say(f"{source.name} is left out: {error}")
            continue
        texts += kept
        counts.append(
            SourceCounts(
                name=source.label,
                documents_in=len(kept) + dropped.total(),
                documents=len(kept),
                characters=_characters(kept),
                dropped=dict(dropped),
            )
        )
    return texts, tuple(counts), skipped


def _counted(texts: Iterator[Document] | Sequence[Document], moving: Bar) -> Iterator[Document]:
    waiting = 0
    for document in texts:
        yield document
        waiting += 1
        if waiting == 1000:  # a bar that moves for every sentence would take longer than the sentence
            moving.advance(waiting)
            waiting = 0
    moving.advance(waiting)


def _numbers(summary: Summary) -> dict[str, int | float | str]:
    """The summary as the flat counts of a manifest."""
    own: Counter[str] = Counter()  # two files in different folders may bear the same name
    for source in summary.sources:
        own[f"{source.name}.documents_in"] += source.documents_in
        own[f"{source.name}.documents"] += source.documents
        own[f"{source.name}.characters"] += source.characters
        own.update({f"{source.name}.dropped.{reason}": count for reason, count in source.dropped.items()})
    numbers: dict[str, int | float | str] = {
        "documents_in": sum(source.documents_in for source in summary.sources),
        "documents": sum(source.documents for source in summary.sources),
        "characters": sum(source.characters for source in summary.sources),
        "train.documents": summary.train_documents,
        "train.characters": summary.train_characters,
        "validation.documents": summary.validation_documents,
        "validation.characters": summary.validation_characters,
        "held_out.documents": summary.held_out_documents,
        "held_out.characters": summary.held_out_characters,
        "twin_share": summary.twin_share,
        **own,
    }
    numbers |= {f"{name}.skipped": reason for name, reason in summary.skipped.items()}
    return numbers | {f"{name}{UNREACHED}": 1 for name in summary.unreached}


def _story(counts: Sequence[SourceCounts], skipped: dict[str, str]) -> str:
    """Why nothing is left, in one line."""
    parts = [
        f"{c.name} had {c.documents_in}, dropped " + (", ".join(f"{n} {r}" for r, n in c.dropped.items()) or "none")
        for c in counts
    ]
    parts += [f"{name} was left out ({reason})" for name, reason in skipped.items()]
    return "; ".join(parts) + "; check the sources and data.min_characters"


def _characters(texts: Sequence[Document]) -> int:
    return sum(len(document.text) for document in texts)


def _safe(source: Source) -> str:
    """A folder name in the cache, another for every source: hf:owner/name:split -> hf%3Aowner%2Fname%3Asplit."""
    return urllib.parse.quote(source.name, safe="")
