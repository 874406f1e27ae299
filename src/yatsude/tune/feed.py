"""Conversations as training rows: packed side by side, with a loss on the assistant's tokens only."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from yatsude.errors import DataError
from yatsude.model.loss import IGNORED
from yatsude.tokenizer.tokenizer import Tokenizer
from yatsude.train.feed import Batch, place
from yatsude.tune.conversations import Conversation

__all__ = ["ChatFeed", "encode"]

Tokens = npt.NDArray[np.int64]


class ChatFeed:
    """Rows of `length` tokens; a conversation that does not fit is left out and counted in `too_long`."""

    def __init__(self, tokenizer: Tokenizer, talks: Iterable[Conversation], length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self.too_long = 0
        self.characters = 0
        """Characters of all answers."""
        rows = list(self._rows(tokenizer, talks))
        if not rows and self.too_long:
            raise DataError(
                f"no conversation fits into {length} tokens ({self.too_long} are longer); raise tune.sequence_length"
            )
        if not rows:
            raise DataError("there is no conversation to learn from; add text, or give tune.sources a file with some")
        inputs, targets, documents = (np.stack(part) for part in zip(*rows, strict=True))
        self.rows = Batch(inputs, targets, documents)

    def batch(self, first: int, count: int) -> Batch:
        """Samples number `first` to `first + count - 1` of the job, shuffled anew every epoch."""
        places = [place(n, len(self.rows.inputs), self.seed) for n in range(first, first + count)]
        return Batch(self.rows.inputs[places], self.rows.targets[places], self.rows.documents[places])

    def batches(self, rows: int) -> Iterator[Batch]:
        """All rows once, in order, `rows` at a time."""
        for start in range(0, len(self.rows.inputs), rows):
            part = slice(start, start + rows)
            yield Batch(self.rows.inputs[part], self.rows.targets[part], self.rows.documents[part])

    def digest(self) -> str:
        """Hexadecimal BLAKE2 of all rows: other conversations are another run."""
        content = hashlib.blake2b(self.rows.inputs.tobytes(), digest_size=16)
        content.update(self.rows.targets.tobytes())
        return content.hexdigest()

    def _rows(self, tokenizer: Tokenizer, talks: Iterable[Conversation]) -> Iterator[tuple[Tokens, Tokens, Tokens]]:
        row, fill = self._empty(tokenizer.pad), 0
        for talk in talks:
            ids, counted = encode(tokenizer, talk)
            size = len(ids) - 1
            if size > self.length:
                self.too_long += 1
                continue
            if fill + size > self.length:
                yield row
                row, fill = self._empty(tokenizer.pad), 0
            part = slice(fill, fill + size)
            row[0][part] = ids[:-1]
            row[1][part] = np.where(counted[1:], ids[1:], IGNORED)
            row[2][fill:] += 1
            fill += size
            self.characters += sum(len(m["content"]) for m in talk if m["role"] == "assistant")
        if fill:
            yield row

    def _empty(self, pad: int) -> tuple[Tokens, Tokens, Tokens]:
        return np.full(self.length, pad), np.full(self.length, IGNORED), np.zeros(self.length, np.int64)


def encode(tokenizer: Tokenizer, talk: Sequence[dict[str, str]]) -> tuple[Tokens, npt.NDArray[np.bool_]]:
    """Ids of a conversation under the chat template, and which of them the assistant is to learn.

    Learnt are the assistant's words and the token that ends them, not the one that opens its turn.
    """
    spoken = tokenizer.spoken(talk, add_generation_prompt=False)
    counted = [speaker is not None and talk[speaker]["role"] == "assistant" for _, speaker in spoken]
    return np.array([token for token, _ in spoken], np.int64), np.array(counted, np.bool_)
