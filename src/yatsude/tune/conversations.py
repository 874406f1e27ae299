"""Conversations to learn from: made from texts and their translations, or the user's own as JSON lines.

A line of such a file:

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from yatsude.errors import DataError
from yatsude.files import state_of
from yatsude.spec.chat import ROLES
from yatsude.spec.tasks import LONGEST, SHORTEST, TASKS, cut, sentences
from yatsude.tokenizer.corpus import columns

__all__ = ["Conversation", "conversations", "state"]

Conversation = list[dict[str, str]]
LONGEST_CHAIN = 3
VALIDATION = 50


def conversations(sources: Sequence[str], data_folder: Path, split: str, limit: int) -> list[Conversation]:
    """Gather the conversations of all sources for "train" or "validation", those made from pairs up to `limit`.

    One in fifty of a user's own conversations is for validation, by the hash of its content, and at least one of each
    file.
    """
    found: list[Conversation] = []
    for source in sources:
        if source == "pairs":
            found += _from_pairs(data_folder, split, limit)
        else:
            found += _of_split(list(_from_file(_path(source))), split)
    if not found:
        raise DataError(
            f"no conversations in {', '.join(sources)} for {split}: the text has no sentence of {SHORTEST} to"
            f" {LONGEST} characters that can be cut in two; give tune.sources a file with some, or add text"
        )
    return found


def state(sources: Sequence[str]) -> list[tuple[str, int, int]]:
    """Name, bytes and time (ns) of each file among the sources: another state is other conversations."""
    paths = [_path(source) for source in sources if source != "pairs"]
    if missing := [path for path in paths if not path.is_file()]:
        raise _missing(missing[0])
    return state_of(paths)


def _path(source: str) -> Path:
    return Path(source.removeprefix("file:")).expanduser()


def _missing(path: Path) -> DataError:
    return DataError(f"no conversations at {path}; check the path in tune.sources")


def _from_pairs(data_folder: Path, split: str, limit: int) -> list[Conversation]:
    """Tasks over the data folder's short texts, or over the sentences of its longer ones where there are none."""
    twins: dict[str, str] = {}
    made: list[Conversation] = []
    for text, english in _pairs(data_folder, split):
        if not SHORTEST <= len(text) <= LONGEST:
            continue
        twin = twins.get(english) if english else None
        if english:
            twins[english] = text
        made += _tasks(text, english, twin)
        if len(made) >= limit:
            break
    if not made:
        whole = (sentence for text, _ in _pairs(data_folder, split) for sentence in sentences(text))
        made = list(itertools.islice((task for sentence in whole for task in _tasks(sentence, None, None)), limit))
    return list(_chained(made[:limit]))


def _pairs(data_folder: Path, split: str) -> Iterator[tuple[str, str | None]]:
    for texts, translations in columns(data_folder, split, ("text", "english")):
        yield from zip(texts, translations, strict=True)


def _chained(talks: Sequence[Conversation]) -> Iterator[Conversation]:
    """Join neighbours to conversations of one to three turns: a later question is answered by its own words too."""
    place = 0
    while place < len(talks):
        turns = 1 + _byte(talks[place][0]["content"]) % LONGEST_CHAIN
        yield [message for talk in talks[place : place + turns] for message in talk]
        place += turns


def _tasks(text: str, english: str | None, twin: str | None) -> Iterator[Conversation]:
    """One task, or two where another sentence has the same translation."""
    kind = _byte(text) % 10
    if twin and twin != text:
        yield _talk(TASKS["rephrase"].prompt(twin), text)
    if english and kind < 3:
        yield _talk(TASKS["to_japanese"].prompt(english), text)
    elif english and kind < 5:
        yield _talk(TASKS["to_english"].prompt(text), english)
    elif (place := cut(text)) is not None:
        beginning = text[:place]
        yield _talk(TASKS["continue"].prompt(beginning) if kind < 7 else beginning, text[place:])


def _byte(text: str) -> int:
    """A number from 0 to 255 that a text always gives."""
    return hashlib.blake2b(text.encode(), digest_size=1).digest()[0]


def _talk(question: str, answer: str) -> Conversation:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _from_file(path: Path) -> Iterator[Conversation]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _checked(line, f"{path} line {number}")
    except FileNotFoundError:
        raise _missing(path) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); convert it and run again") from None


def _checked(line: str, where: str) -> Conversation:
    try:
        talk = [{"role": m["role"], "content": m["content"]} for m in json.loads(line)["messages"]]
        "".join(value for message in talk for value in message.values()).encode()  # texts, and such as can be written
    except UnicodeEncodeError:
        raise DataError(f"{where} holds half of a surrogate pair; expected text that can be UTF-8") from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise DataError(
            f'{where} is no conversation: expected {{"messages": [{{"role": …, "content": …}}, …]}}, all texts'
        ) from None
    unknown = [m["role"] for m in talk if m["role"] not in ROLES]
    if unknown or not any(m["role"] == "assistant" for m in talk):
        what = f"role '{unknown[0]}'" if unknown else "no message of the assistant"
        raise DataError(f"{where} has {what}; expected roles {', '.join(ROLES)} and an answer to learn")
    return talk


def _of_split(talks: list[Conversation], split: str) -> list[Conversation]:
    """One part of a file's conversations; a file of one conversation is both, so that there is something to score."""
    marks = [_mark(talk) for talk in talks]
    out = [mark % VALIDATION == 0 for mark in marks]
    if talks and not any(out):
        sizes = [sum(len(message["content"]) for message in talk) for talk in talks]
        shortest = min(zip(sizes, marks, strict=True))  # if any fits into a row, it does
        out = [key == shortest for key in zip(sizes, marks, strict=True)]
    wanted = split == "validation"
    return talks if all(out) else [talk for talk, aside in zip(talks, out, strict=True) if aside == wanted]


def _mark(talk: Conversation) -> int:
    digest = hashlib.blake2b(json.dumps(talk, ensure_ascii=False).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
