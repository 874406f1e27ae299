"""Data sets of the Hugging Face hub: `hf:OWNER/NAME[:SPLIT]`, in the Parquet form that the hub offers of each.

The list of files and the stated licence are kept beside them, so that a warm cache needs no network.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yatsude import net
from yatsude.data import cache
from yatsude.data.catalogue import Source
from yatsude.data.documents import Document
from yatsude.data.sources.files import parquet_rows
from yatsude.errors import DataError
from yatsude.files import new_file
from yatsude.manifest import Licence

__all__ = ["fetch", "licence", "read"]

ENDPOINT = "https://huggingface.co"
HOSTS = ("huggingface.co", "*.huggingface.co", "*.hf.co")
"""The hub, and the servers that it redirects file requests to."""


def fetch(source: Source, folder: Path) -> list[Path]:
    """The Parquet files in the cache folder, over HTTPS where they are not there yet.

    Raises NetworkError, DataError for a split that does not exist, ChecksumError for a file that changed on disk.
    """
    repository, split = _parts(source)
    about = folder / "about.json"
    if not about.is_file():
        _ask(repository, split, about, source)
    paths = []
    for number, url in enumerate(json.loads(about.read_text(encoding="utf-8"))["files"]):
        path = folder / f"{number:05d}.parquet"
        if not cache.check(path):
            net.download(url, path, purpose=f"fetch {source.name}", hosts=HOSTS)
            cache.remember(path)
        paths.append(path)
    return paths


def read(source: Source, folder: Path) -> Iterator[Document]:
    """A document a row, from the column "text"."""
    for path in fetch(source, folder):
        for number, row in enumerate(parquet_rows(path)):
            yield Document(
                id=f"{path.stem}#{row.get('id', number)}",
                text=row["text"],
                source=source.name,
                domain=source.domain,
                english=row.get("english"),
            )


def licence(source: Source, folder: Path) -> Licence:
    """Terms as the data set's card states them."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    stated = about["licence"] or f"not stated, see {source.url}"
    return Licence(source=source.name, licence=stated, attribution=source.attribution, url=source.url)


def _parts(source: Source) -> tuple[str, str]:
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?::([\w.-]+))?", source.name)
    if not match:
        raise DataError(f"'{source.name}' is not understood; expected hf:OWNER/NAME or hf:OWNER/NAME:SPLIT")
    return match[1], match[2] or "train"


def _ask(repository: str, split: str, about: Path, source: Source) -> None:
    """Ask the hub for the licence and the files of a split, and keep the answer."""
    card = _json(f"/api/datasets/{repository}", source)
    offered = _json(f"/api/datasets/{repository}/parquet", source)
    splits = {name: files for config in offered.values() for name, files in reversed(config.items())}
    if split not in splits:
        raise DataError(f"{source.name}: no split '{split}'; the data set has {', '.join(sorted(splits)) or 'none'}")
    page = {"licence": _stated(card), "files": splits[split]}
    with new_file(about) as draft:
        draft.write_text(json.dumps(page, indent=1), encoding="utf-8")


def _json(path: str, source: Source) -> dict[str, Any]:
    body = net.fetch(ENDPOINT + path, purpose=f"fetch {source.name}", hosts=HOSTS)
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise DataError(f"{ENDPOINT}{path} answered {body[:40]!r}; expected a JSON object: try again later")
    return answer


def _stated(card: dict[str, Any]) -> str:
    value = (card.get("cardData") or {}).get("license") or ""
    return ", ".join(value) if isinstance(value, list) else str(value)
