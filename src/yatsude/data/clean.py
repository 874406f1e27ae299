"""Which texts stay: normalised, of a sensible length, Japanese, and each only once."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator

from yatsude.data.documents import Document
from yatsude.data.settings import DataSettings
from yatsude.text.normalise import normalise
from yatsude.text.scripts import has_kana

__all__ = ["clean"]


def clean(
    texts: Iterable[Document], settings: DataSettings, seen: set[bytes], dropped: Counter[str]
) -> Iterator[Document]:
    """Yield the texts that stay, in order; why the others went is counted in `dropped`.

    `seen` holds the digests of all texts so far, of this source and of earlier ones: of the same normalised text only
    the first stays.
    """
    for document in texts:
        text = normalise(document.text).strip()
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        reason = _reason(text, settings) or ("duplicate" if digest in seen else "")
        if reason:
            dropped[reason] += 1
            continue
        seen.add(digest)
        yield dataclasses.replace(document, text=text)


def _reason(text: str, settings: DataSettings) -> str:
    if len(text) < settings.min_characters:
        return "too_short"
    if len(text) > settings.max_characters:
        return "too_long"
    return "" if has_kana(text) else "not_japanese"
