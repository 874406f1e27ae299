"""A model for another vocabulary: rows of tokens that it knows are kept, those of new tokens begin as a mean.

A new token's rows, in embedding and head, are the mean of the rows of the pieces that the old tokenizer made of it, so
that the model begins where it was.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.write import Weights
from yatsude.errors import CheckpointError
from yatsude.spec.hf import TOKENIZER
from yatsude.spec.stored import EMBEDDING, HEAD, stored

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Extended", "ids_for", "rows_for"]


ENDS = {"bos_token_id", "eos_token_id", "pad_token_id"}


class Extended:
    """The weights over the new vocabulary, made as they are asked for; `rows`: of which old rows each new one is."""

    def __init__(self, model: Weights, rows: Sequence[Sequence[int]], ids: Mapping[str, Any] | None = None) -> None:
        self.model, self.rows = model, rows
        self.config = dataclasses.replace(model.config, vocab_size=len(rows), **(ids or {}))
        self._places = {name: entry.place.tensor for name, entry in stored(self.config).items()}

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """A tensor, or some rows of it."""
        if self._places[name] not in (EMBEDDING, HEAD):
            return self.model.read(name, rows)
        first, last = rows or (0, len(self.rows))
        return torch.cat([self._run(name, start, stop) for start, stop in self._runs(first, last)])

    def lies(self, name: str) -> tuple[Folder, str] | None:
        """Where the model's tensors lie, but for those of the vocabulary."""
        return None if self._places[name] in (EMBEDDING, HEAD) else self.model.lies(name)

    def _runs(self, first: int, last: int) -> list[tuple[int, int]]:
        """Cut new rows into runs that stand next to each other in the old model, and single new tokens."""
        runs: list[tuple[int, int]] = []
        for row in range(first, last):
            old, before = self.rows[row], self.rows[row - 1] if row > first else ()
            if runs and len(old) == len(before) == 1 and old[0] == before[0] + 1:
                runs[-1] = (runs[-1][0], row + 1)
            else:
                runs.append((row, row + 1))
        return runs

    def _run(self, name: str, start: int, stop: int) -> Tensor:
        old = self.rows[start]
        if len(old) == 1:
            return self.model.read(name, (old[0], old[0] + stop - start))
        pieces = [self.model.read(name, (row, row + 1)) for row in old]
        return torch.cat(pieces).float().mean(0, keepdim=True).to(pieces[0].dtype)


def rows_for(old: Path, new: Path, vocab_size: int) -> list[tuple[int, ...]]:
    """For each token of the tokenizer in folder `new`, the rows of the old model (`vocab_size` rows) it begins with."""
    before, after = _tokenizer(old), _tokenizer(new)
    known = before.get_vocab()
    found: list[tuple[int, ...]] = []
    for number in range(after.get_vocab_size()):
        token = after.id_to_token(number)
        if token is None:
            raise CheckpointError(f"{new / TOKENIZER} has no token {number}; expected every id up to the largest")
        pieces = [known[token]] if token in known else _pieces(before, after, number, token)
        if not pieces:
            raise CheckpointError(f"token {number} ({token!r}) of {new / TOKENIZER} is no text; it cannot be begun")
        found.append(tuple(pieces))
    over = max(max(pieces) for pieces in found)
    if over >= vocab_size:
        raise CheckpointError(
            f"{old / TOKENIZER} has token {over}, the model {vocab_size} rows; they do not belong together"
        )
    return found


def ids_for(old: Path, new: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Where the tokens that begin, end and fill a text by `said` stand in the new tokenizer; it must have them."""
    before, after = _tokenizer(old), _tokenizer(new)
    found: dict[str, Any] = {}
    for name in ENDS & said.keys():
        several = said[name] if isinstance(said[name], tuple | list) else [said[name]]
        moved = [None if number is None else _moved(before, after, number, name, new) for number in several]
        found[name] = type(said[name])(moved) if isinstance(said[name], tuple | list) else moved[0]
    return found


def _moved(before: "tokenizers.Tokenizer", after: "tokenizers.Tokenizer", number: int, name: str, new: Path) -> int:
    token = before.id_to_token(number)
    place = None if token is None else after.token_to_id(token)
    if place is None:
        raise CheckpointError(f"{new / TOKENIZER} lacks {token!r}, the model's {name}; keep the special tokens")
    return place


def _pieces(before: "tokenizers.Tokenizer", after: "tokenizers.Tokenizer", number: int, token: str) -> list[int]:
    """What the old tokenizer makes of a new token: as it is spelled, where both spell bytes and spaces alike."""
    if _spells_bytes(before) == _spells_bytes(after) and number not in after.get_added_tokens_decoder():
        return [piece.id for piece in before.model.tokenize(token)]
    return before.encode(after.decode([number], skip_special_tokens=False), add_special_tokens=False).ids


def _spells_bytes(tokenizer: "tokenizers.Tokenizer") -> bool:
    """Whether tokens are spelled in GPT-2's alphabet of bytes."""
    return any("ByteLevel" in repr(part) for part in (tokenizer.pre_tokenizer, tokenizer.decoder))


def _tokenizer(folder: Path) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer  # noqa: PLC0415

    try:
        return Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises plain exceptions
        what = "is missing" if not (folder / TOKENIZER).is_file() else f"is damaged ({error})"
        raise CheckpointError(f"{folder / TOKENIZER} {what}; expected the folder of a tokenizer") from None
