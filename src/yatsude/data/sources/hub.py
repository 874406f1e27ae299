"""Data sets of the Hugging Face hub, in the Parquet form that the hub offers of each.

    hf:OWNER/NAME                 split "train"
    hf:OWNER/NAME:SPLIT           another one
    hf:OWNER/NAME:CONFIG/SPLIT    of a data set that has several configurations

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
from yatsude.data.sources.files import document, parquet_rows
from yatsude.errors import DataError
from yatsude.files import new_file
from yatsude.manifest import Licence
from yatsude.progress import say

__all__ = ["fetch", "licence", "read"]

ENDPOINT = "https://huggingface.co"
ABOUT = "about.json"
HOSTS = ("huggingface.co", "*.huggingface.co", "*.hf.co")
"""The hub, and the servers that it redirects file requests to."""


def fetch(source: Source, folder: Path) -> list[Path]:
    """The Parquet files in the cache folder, over HTTPS where they are not there yet.

    Raises NetworkError, DataError for a split that does not exist, ChecksumError for a file that changed on disk.
    """
    repository, config, split = _parts(source)
    if not (folder / ABOUT).is_file():
        _ask(repository, config, split, folder / ABOUT, source)
    paths = []
    for number, url in enumerate(_about(folder, "files")):
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
            yield document(row, path.stem, number, source)


def licence(source: Source, folder: Path) -> Licence:
    """Terms as the data set's card states them; a model of one that states none is not exported."""
    stated = _about(folder, "licence") or "unknown"
    if stated == "unknown":
        say(f"{source.name} states no licence: a model trained on it is not exported; see {source.url}")
    return Licence(source=source.name, licence=stated, attribution=source.attribution, url=source.url)


def _about(folder: Path, key: str) -> Any:
    """One entry of what the hub answered once."""
    try:
        return json.loads((folder / ABOUT).read_text(encoding="utf-8"))[key]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / ABOUT} is damaged ({error!r}); remove it and run the same command again") from None


def _parts(source: Source) -> tuple[str, str, str]:
    """Repository, configuration ("" where none is named) and split."""
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?::(?:([^/]+)/)?([\w.-]+))?", source.name)
    if not match:
        raise DataError(
            f"'{source.name}' is not understood; expected hf:OWNER/NAME, hf:OWNER/NAME:SPLIT or"
            " hf:OWNER/NAME:CONFIG/SPLIT"
        )
    return match[1], match[2] or "", match[3] or "train"


def _ask(repository: str, config: str, split: str, about: Path, source: Source) -> None:
    """Ask the hub for the licence and the files of a split, and keep the answer."""
    card = _json(f"/api/datasets/{repository}", source)
    offered = _json(f"/api/datasets/{repository}/parquet", source)
    names = [config] if config else list(offered)
    if len(names) != 1 or names[0] not in offered:
        raise DataError(
            f"{source.name}: the data set has the configurations {', '.join(sorted(offered)) or 'none'};"
            f" name one: hf:{repository}:CONFIG/{split}"
        )
    splits = offered[names[0]]
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
