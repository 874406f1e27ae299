"""Does the tuned model answer in its own format? Held-out prompts, three bars.

At least 90 % of the characters are Japanese where Japanese was asked, every answer ends by itself, and no 4-gram of
tokens occurs four times in one answer.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from yatsude.engine.engine import Completion, Engine
from yatsude.engine.settings import SamplingSettings
from yatsude.errors import DataError
from yatsude.evaluate.results import TOO_OFTEN, Answer, Chat
from yatsude.evaluate.samples import spread
from yatsude.evaluate.settings import EvaluateSettings
from yatsude.spec.tasks import LONGEST, SHORTEST, TASKS, cut, sentences
from yatsude.text.scripts import japanese_share
from yatsude.tokenizer.corpus import columns

__all__ = ["Prompt", "ask", "judge", "prompts", "repeats"]

GRAM = 4


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One message to the model; `reference` is what the held-out text says."""

    task: str
    text: str
    reference: str


def prompts(data_folder: Path, number: int) -> list[Prompt]:
    """Make `number` prompts from held-out sentences, the tasks in turn; without translations all continue a text."""
    rows = [
        pair
        for texts, translations in columns(data_folder, "held_out", ("text", "english"))
        for pair in zip(texts, translations, strict=True)
    ]
    found = [pair for pair in rows if SHORTEST <= len(pair[0]) <= LONGEST and cut(pair[0]) is not None]
    if not found:
        found = [(sentence, None) for text, _ in rows for sentence in sentences(text) if cut(sentence) is not None]
    pairs = [pair for pair in found if pair[1]]
    tasks = ["to_japanese", "to_english", "continue"] if len(pairs) >= number else ["continue"]
    usable = pairs if len(tasks) > 1 else found
    if not usable:
        raise DataError(
            f"{data_folder / 'held_out'} has no sentence of {SHORTEST} to {LONGEST} characters to ask about;"
            " hold out more text"
        )
    chosen = [usable[place] for place in spread(len(usable), number)]
    return [_prompt(task, *pair) for task, pair in zip(itertools.cycle(tasks), chosen, strict=False)]


def ask(engine: Engine, asked: Sequence[Prompt], settings: EvaluateSettings) -> Chat:
    """Put every prompt to the model with the sampling of the chat page, and judge the answers."""
    encoded = [engine.tokenizer.encode_chat([{"role": "user", "content": prompt.text}]) for prompt in asked]
    sampling = SamplingSettings(
        temperature=settings.temperature, top_p=settings.top_p, seed=settings.seed, max_tokens=settings.answer_tokens
    )
    completions = engine.generate(encoded, sampling)
    return judge([_answer(prompt, done) for prompt, done in zip(asked, completions, strict=True)])


def judge(answers: Sequence[Answer]) -> Chat:
    """Hold answers against the bars; longer answers weigh more in the share of Japanese."""
    asked = [answer for answer in answers if answer.japanese_asked]
    return Chat(
        answers=tuple(answers),
        japanese=japanese_share("".join(answer.text for answer in asked)) if asked else None,
        ended=sum(answer.ended and bool(answer.text.strip()) for answer in answers),
        repeating=sum(answer.repeats >= TOO_OFTEN for answer in answers),
    )


def repeats(tokens: Sequence[int]) -> int:
    """How often the most frequent 4-gram of `tokens` occurs; 0 if there is none.

    >>> repeats([1, 2, 3, 4, 9, 1, 2, 3, 4])
    2
    """
    grams = Counter(tuple(tokens[start : start + GRAM]) for start in range(len(tokens) - GRAM + 1))
    return max(grams.values(), default=0)


def _answer(prompt: Prompt, done: Completion) -> Answer:
    ended = done.finish_reason == "stop"
    return Answer(
        task=prompt.task,
        prompt=prompt.text,
        text=done.text,
        reference=prompt.reference,
        japanese_asked=TASKS[prompt.task].japanese_answer,
        japanese=japanese_share(done.text),
        ended=ended,
        repeats=repeats(done.tokens[:-1] if ended else done.tokens),
    )


def _prompt(task: str, text: str, english: str | None) -> Prompt:
    if task == "to_japanese":
        return Prompt(task, TASKS[task].prompt(english or ""), text)
    if task == "to_english":
        return Prompt(task, TASKS[task].prompt(text), english or "")
    place = cut(text) or len(text) // 2
    return Prompt(task, TASKS[task].prompt(text[:place]), text[place:])
