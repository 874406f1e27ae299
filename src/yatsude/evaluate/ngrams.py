"""What character n-grams with tuned Kneser-Ney smoothing need for the texts that the model is measured on.

They learn from the training text of the data folder. Their figures depend on the data alone, so they are kept in one
file beside that folder and fitted again only when text, orders or the choice of documents change.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from yatsude import manifest
from yatsude.evaluate.results import Bits, NgramBits
from yatsude.files import new_file
from yatsude.progress import say
from yatsude.text.ngram import Ngram, fit_orders
from yatsude.tokenizer.corpus import columns

__all__ = ["background", "measure", "store"]

T = TypeVar("T")
Kept = dict[str, list[NgramBits]]
_KEPT = TypeAdapter(Kept)
KEPT = 8
"""Sets of figures that are kept, the newest."""


def measure(
    data_folder: Path,
    orders: Sequence[int],
    texts: Sequence[str],
    kinds: Sequence[str],
    validation: Sequence[str],
) -> tuple[NgramBits, ...]:
    """Bits of the folder's first held-out texts by kind, and of its first validation texts, as many as are given."""
    path = store(data_folder)
    key = _key(data_folder, orders, len(texts), len(validation))
    kept = _read(path)
    if key not in kept:
        train = [text for (batch,) in columns(data_folder, "train", ("text",)) for text in batch]
        models = fit_orders(train, orders)
        found = [_bits(order, model, texts, kinds, validation) for order, model in sorted(models.items())]
        kept = {**dict(list(kept.items())[1 - KEPT :]), key: found}
        _write(path, kept)
    return tuple(kept[key])


def store(data_folder: Path) -> Path:
    """Name the file that keeps the figures of a data folder."""
    return data_folder.with_name(f"{data_folder.name}.ngrams.json")


def background(work: Callable[[], T]) -> Future[T]:
    """Do `work` in a thread that does not keep the program from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="n-grams", daemon=True).start()
    return future


def _bits(order: int, model: Ngram, texts: Sequence[str], kinds: Sequence[str], validation: Sequence[str]) -> NgramBits:
    parts: dict[str, list[str]] = {}
    for text, kind in zip(texts, kinds, strict=True):
        parts.setdefault(kind, []).append(text)
    return NgramBits(
        order=order,
        kinds={kind: _cost(model, part) for kind, part in sorted(parts.items()) if any(part)},
        validation=_cost(model, validation),
    )


def _cost(model: Ngram, texts: Sequence[str]) -> Bits:
    return Bits(model.bits(texts) if texts else 0.0, sum(map(len, texts)))


def _key(data_folder: Path, orders: Sequence[int], documents: int, validation: int) -> str:
    page = manifest.read(data_folder, "data")
    files = {name: file.sha256 for name, file in page.files.items() if name.endswith(".parquet")}
    plain = json.dumps([page.version, sorted(files.items()), sorted(set(orders)), documents, validation])
    return hashlib.sha256(plain.encode()).hexdigest()


def _read(path: Path) -> Kept:
    """Read what was kept; a file that is missing or damaged only costs a new fit."""
    try:
        return _KEPT.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def _write(path: Path, kept: Kept) -> None:
    try:
        with new_file(path) as draft:
            draft.write_bytes(_KEPT.dump_json(kept, indent=1))
    except PermissionError as error:
        say(f"n-grams: {path} cannot be written ({error.strerror}); the next evaluation fits them again")
