"""Text while it is being generated.

A Japanese character is three bytes and may be spread over three tokens: it is shown when its last byte has come.
"""

import codecs
from collections.abc import Container, Sequence

from yatsude.errors import RequestError

__all__ = ["Stream"]


class Stream:
    """Turns token ids into text, one at a time, and never emits a broken character.

    Bytes of an unfinished character wait for the rest; bytes that can no longer become a character are dropped.

    >>> stream = tokenizer.stream()
    >>> "".join(map(stream.push, ids)) == tokenizer.decode(ids)
    True
    """

    def __init__(self, token_bytes: Sequence[bytes], hidden: Container[int]) -> None:
        """Take the bytes of every id; those that are `hidden` are passed over in silence."""
        self._bytes, self._hidden = token_bytes, hidden
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    def push(self, token: int) -> str:
        """Return the text that became complete with this id, often one character, sometimes none."""
        if not 0 <= token < len(self._bytes):
            raise RequestError(f"token id {token} is outside the vocabulary of {len(self._bytes)} tokens")
        return "" if token in self._hidden else self._decoder.decode(self._bytes[token])
