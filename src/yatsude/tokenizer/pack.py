"""Text to token shards: one document after the other, separated by the token that ends a text.

Each split, `train/`, `validation/` and `held_out/`, holds

    tokens-00000.bin …   token shards as `shards.py` writes them, in the order of the Parquet rows
    domains.json         the names of the kinds of text
    domains.npy          for each document the place of its kind in that list, uint8

and `english/` the shards of the training texts' translations, where they have some.
"""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yatsude import shards
from yatsude.errors import DataError
from yatsude.files import new_file
from yatsude.progress import Bar, bar
from yatsude.tokenizer.corpus import SPLITS, columns, count
from yatsude.tokenizer.tokenizer import Tokenizer

__all__ = ["ENGLISH", "Tally", "domains", "pack", "pack_english"]

ENGLISH = "english"
"""Folder of the packed translations, beside the splits."""


@dataclasses.dataclass
class Tally:
    """What went into one split."""

    documents: int = 0
    stored: int = 0
    """Tokens on disk, separators included; those below are of the text alone."""
    characters: Counter[str] = dataclasses.field(default_factory=Counter)
    tokens: Counter[str] = dataclasses.field(default_factory=Counter)
    order: list[str] = dataclasses.field(default_factory=list)
    """The domain of each document."""

    def characters_per_token(self, domain: str | None = None) -> float:
        """Mean length of a token in one domain, or in all of the split."""
        tokens = self.tokens[domain] if domain else self.tokens.total()
        return (self.characters[domain] if domain else self.characters.total()) / max(tokens, 1)


def pack(tokenizer: Tokenizer, data_folder: Path, folder: Path) -> dict[str, Tally]:
    """Encode each split of a data folder into a folder of its name in `folder`; returns one tally a split."""
    return {split: _pack_split(tokenizer, data_folder, folder / split, split) for split in SPLITS}


def pack_english(tokenizer: Tokenizer, data_folder: Path, folder: Path) -> bool:
    """Encode the translations of the training texts into `folder`, if there are any; whether there were.

    They are not trained on, but which token follows which in them is worth knowing before a chat task asks for English.
    """
    texts = (text for (column,) in columns(data_folder, "train", ("english",)) for text in column if text)
    first = next(texts, None)
    if first is None:
        return False
    shards.write(
        folder,
        (([*tokenizer.lead, *tokenizer.encode(text)], len(text)) for text in itertools.chain([first], texts)),
        vocab_size=tokenizer.vocab_size,
        separator=tokenizer.text,
    )
    return True


def domains(folder: Path) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Read the names of the domains of a packed split, and for each document its place among them."""
    try:
        names = json.loads((folder / "domains.json").read_text(encoding="utf-8"))
        return names, np.load(folder / "domains.npy", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing; run 'yatsude tokenizer' to write token shards") from None
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"the domains in {folder} are damaged ({error}); run 'yatsude tokenizer' again") from None


def _pack_split(tokenizer: Tokenizer, data_folder: Path, folder: Path, split: str) -> Tally:
    total, _ = count(data_folder, split)
    tally = Tally()
    with bar(f"encode {split}", total, "texts") as progress:
        written = shards.write(
            folder,
            _encoded(tokenizer, data_folder, split, tally, progress),
            vocab_size=tokenizer.vocab_size,
            separator=tokenizer.text,
        )
    tally.stored = written.tokens
    names = sorted(tally.characters)
    if len(names) > 256:
        raise DataError(f"{data_folder / split} names {len(names)} domains, expected at most 256; merge some of them")
    with new_file(folder / "domains.json") as draft:
        draft.write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    with new_file(folder / "domains.npy") as draft, draft.open("wb") as stream:
        np.save(stream, np.array([names.index(name) for name in tally.order], np.uint8), allow_pickle=False)
    return tally


def _encoded(
    tokenizer: Tokenizer, data_folder: Path, split: str, tally: Tally, progress: Bar
) -> Iterator[tuple[list[int], int]]:
    for texts, kinds in columns(data_folder, split, ("text", "domain")):
        for text, kind, ids in zip(texts, kinds, tokenizer.encode_batch(texts), strict=True):
            tally.documents += 1
            tally.characters[kind] += len(text)
            tally.tokens[kind] += len(ids)
            tally.order.append(kind)
            yield [*tokenizer.lead, *ids], len(text)
        progress.advance(len(texts))
