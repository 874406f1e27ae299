"""Documents that were not trained on, by kind of text, as tokens and as characters; both in the same order."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yatsude.errors import DataError
from yatsude.shards import Shards
from yatsude.tokenizer.corpus import columns
from yatsude.tokenizer.pack import domains

__all__ = ["Part", "parts", "texts"]

Tokens = npt.NDArray[np.int64]


class Part:
    """The documents of one kind of text; `listener` hears the characters of each document as it is read."""

    def __init__(
        self, shards: Shards, chosen: npt.NDArray[np.bool_], listener: Callable[[int], None] = lambda _: None
    ) -> None:
        """Choose documents by a mask over all of `shards`, shape (documents,)."""
        self.shards, self.chosen, self.listener = shards, chosen, listener
        self.characters = shards.characters[chosen]

    def documents(self) -> Iterable[Tokens]:
        """Each chosen document as in `Shards`."""
        chosen = itertools.compress(self.shards.documents(), self.chosen)
        for document, characters in zip(chosen, self.characters, strict=False):
            yield document
            self.listener(int(characters))


def parts(
    folder: Path, documents: int | None = None, listener: Callable[[int], None] = lambda _: None
) -> dict[str, Part]:
    """Split the first `documents` (none: all) of a packed split by kind of text; empty kinds are left out."""
    names, places = domains(folder)
    early = np.arange(len(places)) < (len(places) if documents is None else documents)
    shards = Shards(folder)
    found = {name: Part(shards, early & (places == number), listener) for number, name in enumerate(names)}
    return {name: part for name, part in found.items() if part.characters.sum()}


def texts(data_folder: Path, tokens_folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Read the texts of a split and the kind of each; they must be the texts that the shards were made from."""
    batches = list(columns(data_folder, split, ("text", "domain")))
    lines = [text for batch, _ in batches for text in batch]
    packed = Shards(tokens_folder / split).characters
    if not np.array_equal(packed, np.array(list(map(len, lines)), np.int32)):
        raise DataError(
            f"{tokens_folder / split} holds {len(packed):,} documents of {int(packed.sum()):,} characters,"
            f" {data_folder / split} {len(lines):,} of {sum(map(len, lines)):,}; give the data folder it was made from"
        )
    return lines, [kind for _, kinds in batches for kind in kinds]
