"""Safe normalising: what looks the same becomes the same, and nothing that carries meaning is touched.

Full NFKC is not safe for Japanese: it merges ① with 1, ² with 2, ㍻ with 平成, and compatibility ideographs of
personal names with their everyday forms (NFC does the last, too). Only these change here:

    half-width kana and marks   ｶﾞｷﾞ｡        ->  ガギ。
    kana and combining mark     か + U+3099  ->  が
    line ends                   CRLF, CR, U+0085, U+2028, U+2029  ->  LF
    invisible                   controls (but tab), zero-width, direction marks, soft hyphen  ->  removed
"""

import re
import unicodedata

__all__ = ["normalise"]

_LINE_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
    # a joiner holds the parts of an emoji together; anywhere else it is noise
    "|(?<![\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])\u200d"
)
_HALF_WIDTH = re.compile("[\uff61-\uff9f]+")
_COMBINED = re.compile("[\u3041-\u30fe][\u3099\u309a]")


def normalise(text: str) -> str:
    r"""Normalise a text; a second pass changes nothing.

    >>> normalise("ﾃﾞｰﾀ①\r\n")
    'データ①\n'
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _INVISIBLE.sub("", text)
    text = _HALF_WIDTH.sub(_widen, text)
    return _COMBINED.sub(lambda match: unicodedata.normalize("NFC", match[0]), text)


def _widen(match: re.Match[str]) -> str:
    wide = unicodedata.normalize("NFKC", match[0])
    return wide.replace("\u3099", "゛").replace("\u309a", "゜")  # a mark that found no kana stands alone
