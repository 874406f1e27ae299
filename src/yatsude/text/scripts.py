"""Which script a character belongs to, and how much of a text is Japanese.

Japanese characters are kana, kanji, the marks of U+3000 to U+303F (、。「」々〆) and full-width forms (Ａ１！ｶ).
"""

import re

__all__ = ["JAPANESE", "has_kana", "japanese_share"]

HIRAGANA = "\u3041-\u309f"
KATAKANA = "\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"
KANJI = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
JAPANESE = f"\u3000-\u303f{HIRAGANA}{KATAKANA}{KANJI}\uff00-\uffef"
"""The inside of a regular expression's brackets: `[{JAPANESE}]` is one Japanese character."""

_KANA = re.compile(f"[{HIRAGANA}{KATAKANA}]")
_OTHER = re.compile(rf"[^\s{JAPANESE}]+")
_SPACE = re.compile(r"\s+")


def has_kana(text: str) -> bool:
    """Whether there is a hiragana or a katakana."""
    return _KANA.search(text) is not None


def japanese_share(text: str) -> float:
    """Share of Japanese characters among all but white space, 0 to 1; of an empty text 0.

    >>> japanese_share("猫 cat。")
    0.4
    """
    dense = _SPACE.sub("", text)
    if not dense:
        return 0.0
    return len(_OTHER.sub("", dense)) / len(dense)
