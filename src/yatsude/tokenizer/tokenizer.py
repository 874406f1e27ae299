"""Text to token ids and back, and the folder both live in.

A tokenizer folder holds

    tokenizer.json           everything, in the format of Hugging Face `tokenizers`
    tokenizer_config.json    for `transformers.AutoTokenizer`, vLLM and SGLang
    chat_template.jinja      the same chat template on its own

What a user writes is content, never control: `encode` spells "<|end|>" out in ordinary tokens, and only the chat
template sets the special tokens between messages. Programs that render the template to one string first, as
transformers does, cannot tell the two apart; for content without such text the ids are the same.
"""

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yatsude.errors import DataError, RequestError
from yatsude.files import new_file
from yatsude.spec import chat
from yatsude.tokenizer.alphabet import token_bytes
from yatsude.tokenizer.special import CONFIG, OWN, TEMPLATE, Special, is_control
from yatsude.tokenizer.stream import Stream
from yatsude.tokenizer.template import Span, Template

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Tokenizer"]

NAME = "tokenizer.json"


class Tokenizer:
    """A vocabulary that loses nothing, of one's own or of a model from elsewhere, and what its special tokens mean.

    >>> tokenizer = Tokenizer.load(Path("run/tokenizer"))
    >>> tokenizer.decode(tokenizer.encode("こんにちは。"))
    'こんにちは。'
    """

    def __init__(self, backend: "tokenizers.Tokenizer", special: Special = OWN) -> None:
        page = json.loads(backend.to_str())
        for token in page["added_tokens"]:
            token["special"] = is_control(token["content"], token["special"])
        self.commands = type(backend).from_str(json.dumps(page))
        """Reads "<|end|>" as the token."""
        self.words = type(backend).from_str(json.dumps(page))
        """Reads "<|end|>" as seven characters."""
        self.words.encode_special_tokens = True
        self.special = special
        controls = {token["content"]: token["id"] for token in page["added_tokens"] if token["special"]}
        self.controls = frozenset(controls.values())
        """Ids that open or close something and are no text."""
        self._control = re.compile("|".join(map(re.escape, controls)) or "(?!)")
        self._bytes = token_bytes(self.commands)
        self.text = self._id(special.eos)
        """Id that closes a text, and separates texts in token shards."""
        self.opening = () if special.bos is None else (self._id(special.bos),)
        """Ids in front of a text."""
        self.pad = self.text if special.pad is None else self._id(special.pad)
        """Id of what fills a row up."""

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Open a tokenizer folder, or any model folder that holds one."""
        from tokenizers import Tokenizer as Backend  # noqa: PLC0415

        path = folder / NAME
        if not path.is_file():
            raise DataError(f"no {NAME} in {folder}; run 'yatsude tokenizer' or check the path")
        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{path} is damaged ({error}); run 'yatsude tokenizer' again") from None
        return cls(backend, Special.read(folder))

    def save(self, folder: Path) -> None:
        """Write the files of a tokenizer folder, each atomically."""
        pages = {NAME: self.commands.to_str(pretty=True), CONFIG: json.dumps(self.special.page(), indent=1)}
        if self.special.template is not None:
            pages[TEMPLATE] = self.special.template
        for name, page in pages.items():
            with new_file(folder / name) as draft:
                draft.write_text(page, encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self._bytes)

    @property
    def lead(self) -> tuple[int, ...]:
        """Ids in front of a text in token shards, where one that separates texts stands before it anyway."""
        return tuple(token for token in self.opening if token != self.text)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, none of them special, nothing added in front or behind."""
        return [token for _, encoding in self._spelled(_valid(text)) for token in encoding.ids]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, on all cores; a few thousand short texts at a time keep memory small."""
        batch = self.words.encode_batch_fast([_valid(text) for text in texts], add_special_tokens=False)
        return [
            encoding.ids if self.controls.isdisjoint(encoding.ids) else self.encode(text)
            for text, encoding in zip(texts, batch, strict=True)
        ]

    def encode_chat(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> list[int]:
        """Ids of `{"role", "content"}` messages under the chat template.

        With `add_generation_prompt` the assistant's turn is opened, so that the model answers.
        """
        return [token for token, _ in self.spoken(messages, add_generation_prompt)]

    def spoken(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool
    ) -> list[tuple[int, int | None]]:
        """Ids of a conversation, each with the place of the message that it is part of.

        Part of a message are its words and the special token that ends them; None is the rest of the template's own.
        """
        for message in messages:
            if message["role"] not in chat.ROLES:
                raise RequestError(f"role '{message['role']}' is unknown; expected one of {', '.join(chat.ROLES)}")
            _valid(message["content"])
        spans = self.template.render(messages, add_generation_prompt)
        quoted = next(filter(None, (self._control.search(message["content"]) for message in messages)), None)
        if quoted and all(speaker is None for _, speaker in spans):
            raise RequestError(
                f"a message holds {quoted[0]}, which the chat template of this model would make a command; leave it out"
            )
        speakers, ends = _speakers(spans)
        return [
            (token, ends.get(start) if token in self.controls else speakers[max(end - 1, 0)])
            for token, start, end in self._placed(spans, apart=quoted is not None)
        ]

    @functools.cached_property
    def template(self) -> Template:
        """The chat template."""
        if self.special.template is None:
            raise RequestError(
                "the model has no chat template: it goes texts on, and was not made for conversations; put a"
                f" {TEMPLATE} into its folder if it was"
            )
        named = {"bos_token": self.special.bos, "eos_token": self.special.eos, "pad_token": self.special.pad}
        return Template(self.special.template, {name: token for name, token in named.items() if token is not None})

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of ids; bytes that form no character are left out, as in a `Stream` of the same ids."""
        stream = self.stream(skip_special)
        return "".join(map(stream.push, ids)).removeprefix(self._front)

    def stream(self, skip_special: bool = True) -> Stream:
        """Open a stream that turns one id after the other into text."""
        return Stream(self._bytes, self.controls if skip_special else frozenset())

    def token_bytes(self, token: int) -> bytes:
        """Bytes that one id stands for, which may be a part of a character."""
        return self._bytes[token]

    @functools.cached_property
    def _front(self) -> str:
        """What the tokenizer puts in front of a text: SentencePiece's put a space there."""
        return b"".join(self._bytes[token] for token in self.encode("a")).decode().removesuffix("a")

    def _id(self, token: str) -> int:
        number: int | None = self.commands.token_to_id(token)
        if number is None:
            raise DataError(f"{NAME} has no token {token}, which {CONFIG} names; they are not of one model")
        return number

    def _placed(self, spans: Sequence[Span], apart: bool) -> Iterator[tuple[int, int, int]]:
        """Ids with where their characters start and end.

        All is encoded at once, as when the model was trained: a token may reach from the template's own text into a
        message. Only where a message quotes a command are its words encoded `apart`.
        """
        pieces = spans if apart else [("".join(text for text, _ in spans), None)]
        place = 0
        for text, speaker in pieces:
            for part, encoding in self._commanded(text) if speaker is None else self._spelled(text):
                for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                    yield token, place + start, place + end
                place += len(part)

    def _commanded(self, text: str) -> list[tuple[str, "tokenizers.Encoding"]]:
        return [(text, self.commands.encode(text, add_special_tokens=False))]

    def _spelled(self, text: str) -> list[tuple[str, "tokenizers.Encoding"]]:
        """Encode words; cut where a Unigram vocabulary, which holds its commands as words, would say one."""
        encoding = self.words.encode(text, add_special_tokens=False)
        if self.controls.isdisjoint(encoding.ids):
            return [(text, encoding)]
        cuts = [0, *(match.start() + 1 for match in self._control.finditer(text)), len(text)]
        parts = [text[start:end] for start, end in itertools.pairwise(cuts)]
        return [(part, self.words.encode(part, add_special_tokens=False)) for part in parts]


def _speakers(spans: Sequence[Span]) -> tuple[list[int | None], dict[int, int]]:
    """Whose each character is, and after which characters whose words end."""
    speakers: list[int | None] = []
    ends = {}
    for text, speaker in spans:
        speakers += [speaker] * len(text)
        if speaker is not None:
            ends[len(speakers)] = speaker
    return speakers, ends


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a surrogate pair;"
            " expected text that can be written as UTF-8"
        ) from None
    return text
