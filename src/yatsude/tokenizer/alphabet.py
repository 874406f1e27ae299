"""Bytes of each token, for the two ways in which vocabularies that lose nothing spell them.

Byte-level ones (GPT-2's, and the tokenizers trained here) write byte b as the b-th character of a printable alphabet.
SentencePiece's write "▁" for a space, and `<0xE3>` for a byte of a character that is no token.
"""

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from yatsude.errors import DataError

if TYPE_CHECKING:
    import tokenizers

__all__ = ["token_bytes"]

BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(backend: "tokenizers.Tokenizer") -> list[bytes]:
    """Bytes of each id from 0 to the largest; added tokens are spelled as they are, ids that are no token empty."""
    spelled = _spelling(backend)
    added = {number: token.content for number, token in backend.get_added_tokens_decoder().items()}
    vocabulary = backend.get_vocab()
    found = [b""] * (1 + max(vocabulary.values(), default=-1))
    for token, number in vocabulary.items():
        found[number] = added[number].encode() if number in added else spelled(token)
    return found


def _spelling(backend: "tokenizers.Tokenizer") -> Callable[[str], bytes]:
    page = json.loads(backend.to_str())
    cut, joined = json.dumps(page["pre_tokenizer"]), json.dumps(page["decoder"])
    if '"ByteLevel"' in cut + joined:
        return _byte_level
    if '"ByteFallback"' in joined:
        return _sentencepiece
    raise DataError(
        "the tokenizer is neither byte-level nor falls back to bytes: some texts have no tokens in it; take a model"
        " whose tokenizer loses nothing"
    )


def _byte_level(token: str) -> bytes:
    try:
        return bytes(ALPHABET[character] for character in token)
    except KeyError as error:
        raise DataError(f"the tokenizer has a token with {error}, expected byte-level tokens only") from None


def _sentencepiece(token: str) -> bytes:
    byte = BYTE.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace("▁", " ").encode()


def _alphabet() -> dict[str, int]:
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(rest)}


ALPHABET = _alphabet()
