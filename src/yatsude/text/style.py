"""Polite (敬体: です, ます) or plain style (常体: だ, である, plain verbs), read off the ends of sentences.

A rule of endings, no grammar. What it cannot tell, it leaves undecided: a heading, a noun at the end, a greeting, an
order in なさい. Plain endings are many and look like nouns (違い, 扱う人), so they count only where a mark closes the
sentence; polite ones speak for themselves.
"""

import re

__all__ = ["PLAIN", "POLITE", "sentence_style", "style"]

POLITE, PLAIN = "polite", "plain"
CLEAR = 0.8
"""A text has a style if at least this share of its decided sentences has it."""

_SENTENCE = re.compile(r"[^。．！？!?\n]+[。．！？!?]*[」』）)”\"]*")
_CLOSED = re.compile(r"[。．！？!?」』）)”\"]$")
_TAIL = re.compile(r"[\s。．！？!?…・～〜ー」』）)”\"]+$")
_PARTICLES = re.compile(r"(?:けれども|けれど|けど|だもの|もの|とも|って|[かねよなわぞぜさのがし])*$")
_POLITE = re.compile(
    r"(?:です|でした|でしょう|ませんでした|ください|下さい|いませ"
    # だます, 励ます and their like are plain verbs that only end as polite ones do
    r"|(?<![ださす励覚冷済悩澄醒騙])(?:ます|ました|ません|ましょう))$"
)
_UNDECIDED = re.compile(r"(?:なさい|お願い|ありがとう|おはよう|おめでとう|あなた|^はい|^もう|^こんばん|^いい)$")
_PLAIN = re.compile(r"(?:[だたいるうくぐすつぬぶむ]|まい|よう|しろ|だろ)$")


def sentence_style(sentence: str) -> str | None:
    """Style of one sentence: "polite", "plain" or None where its end does not tell.

    >>> sentence_style("雨が降っていますね。"), sentence_style("雨が降る。"), sentence_style("雨")
    ('polite', 'plain', None)
    """
    closed = _CLOSED.search(sentence.strip()) is not None
    whole = _TAIL.sub("", sentence.strip())
    core = _PARTICLES.sub("", whole)
    if _POLITE.search(core):
        return POLITE
    if not closed or _UNDECIDED.search(whole) or _UNDECIDED.search(core):
        return None
    return PLAIN if _PLAIN.search(whole) or _PLAIN.search(core) else None


def style(text: str) -> str | None:
    """Style of a text: that of four in five of its decided sentences, None if it is mixed or nothing is decided."""
    found = [kind for sentence in _SENTENCE.findall(text) if (kind := sentence_style(sentence))]
    share = found.count(POLITE) / len(found) if found else 0.5
    if share >= CLEAR:
        return POLITE
    return PLAIN if share <= 1 - CLEAR + 1e-9 else None
