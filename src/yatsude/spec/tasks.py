"""What a small chat model is taught to do, and the words that ask for it.

Tuning, evaluation and the chat page's buttons all use these words, so that a small model meets the wording it knows.
"""

import dataclasses
import re
from types import MappingProxyType

__all__ = ["LONGEST", "SHORTEST", "TASKS", "Task", "cut", "sentences"]

SHORTEST, LONGEST = 8, 120
"""Characters of a sentence that is asked about: a shorter one has no beginning and end worth telling apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of question; `instruction` stands on a line of its own above the text it is about."""

    instruction: str
    label: str
    """Name for people, in Japanese."""
    japanese_answer: bool

    def prompt(self, text: str) -> str:
        """Write the user's message about `text`."""
        return f"{self.instruction}\n{text}"


TASKS = MappingProxyType(
    {
        "to_japanese": Task(
            instruction="次の英語を日本語に訳してください。", label="英語→日本語", japanese_answer=True
        ),
        "to_english": Task(
            instruction="次の日本語を英語に訳してください。", label="日本語→英語", japanese_answer=False
        ),
        "continue": Task(instruction="次の文の続きを書いてください。", label="続きを書く", japanese_answer=True),
        "rephrase": Task(
            instruction="次の文を別の言い方で言い換えてください。", label="言い換え", japanese_answer=True
        ),
    }
)
"""Name -> task. A message without an instruction is taken as the beginning of a text to continue."""


def sentences(text: str) -> list[str]:
    """Sentences of a text that can be asked about.

    >>> sentences("昨日は雨でした。" * 20 + "短い。")[1]
    '昨日は雨でした。'
    """
    found = map(str.strip, re.findall(r"[^。！？\n]+[。！？]?", text))
    return [sentence for sentence in found if SHORTEST <= len(sentence) <= LONGEST]


def cut(text: str) -> int | None:
    """Find where a sentence is cut in two: behind the comma or particle nearest to its middle; none if there is none.

    >>> cut("昨日は、友達と会いました。")
    7
    """
    places = [match.end() for match in re.finditer("[、はがをにでと]", text) if 2 <= match.end() <= len(text) - 3]
    return min(places, key=lambda place: abs(place - len(text) / 2)) if places else None
