"""Text to token ids and back, and the folder both live in.

A tokenizer folder holds

    tokenizer.json           everything, in the format of Hugging Face `tokenizers`
    tokenizer_config.json    for `transformers.AutoTokenizer`, vLLM and SGLang
    chat_template.jinja      the same chat template on its own

What a user writes is content, never control: `encode` spells "<|end|>" out in ordinary tokens, and only `encode_chat`
sets the special tokens between messages. Programs that render the template to one string first, as transformers does,
cannot tell the two apart; for content without such text the ids are the same.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yatsude.errors import DataError, RequestError
from yatsude.files import new_file
from yatsude.spec import chat
from yatsude.tokenizer.stream import Stream

if TYPE_CHECKING:
    import tokenizers

__all__ = ["FILES", "Tokenizer"]

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class Tokenizer:
    """A trained byte-level BPE with the special tokens of `spec/chat.py` as ids 0 to 5.

    >>> tokenizer = Tokenizer.load(Path("run/tokenizer"))
    >>> tokenizer.decode(tokenizer.encode("こんにちは。"))
    'こんにちは。'
    """

    def __init__(self, backend: "tokenizers.Tokenizer") -> None:
        ids = [backend.token_to_id(token) for token in chat.SPECIAL_TOKENS]
        if ids != list(range(len(ids))):
            raise DataError(
                f"the tokenizer has {dict(zip(chat.SPECIAL_TOKENS, ids, strict=True))},"
                f" expected ids 0 to {len(ids) - 1}; train one with 'yatsude tokenizer'"
            )
        backend.encode_special_tokens = True  # "<|end|>" in a text is seven characters, not a command
        self.backend = backend
        self._bytes = _token_bytes(backend)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Open a tokenizer folder, or any model folder that holds one."""
        from tokenizers import Tokenizer as Backend  # noqa: PLC0415

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise DataError(f"no tokenizer.json in {folder}; run 'yatsude tokenizer' or check the path")
        try:
            return cls(Backend.from_file(str(path)))
        except DataError:
            raise
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{path} is damaged ({error}); run 'yatsude tokenizer' again") from None

    def save(self, folder: Path) -> None:
        """Write the three files of a tokenizer folder, each atomically."""
        pages = (self.backend.to_str(pretty=True), json.dumps(_config(), indent=1), chat.CHAT_TEMPLATE)
        for name, page in zip(FILES, pages, strict=True):
            with new_file(folder / name) as draft:
                draft.write_text(page, encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self._bytes)

    @property
    def text(self) -> int:
        """Id of `<|endoftext|>`, which opens, closes and separates texts."""
        return chat.SPECIAL_TOKENS.index(chat.TEXT)

    @property
    def pad(self) -> int:
        """Id of `<|pad|>`."""
        return chat.SPECIAL_TOKENS.index(chat.PAD)

    @property
    def end(self) -> int:
        """Id of `<|end|>`, which closes a message."""
        return chat.SPECIAL_TOKENS.index(chat.END)

    @property
    def system(self) -> int:
        """Id of `<|system|>`."""
        return self.role("system")

    @property
    def user(self) -> int:
        """Id of `<|user|>`."""
        return self.role("user")

    @property
    def assistant(self) -> int:
        """Id of `<|assistant|>`."""
        return self.role("assistant")

    def role(self, name: str) -> int:
        """Id of the token that opens a message of role `name`."""
        if name not in chat.ROLES:
            raise RequestError(f"role '{name}' is unknown; expected one of {', '.join(chat.ROLES)}")
        return chat.SPECIAL_TOKENS.index(chat.ROLES[name])

    def encode(self, text: str) -> list[int]:
        """Ids of a text, none of them special, nothing added in front or behind."""
        ids: list[int] = self.backend.encode(_valid(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, on all cores; a few thousand short texts at a time keep memory small."""
        batch = self.backend.encode_batch_fast([_valid(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def encode_chat(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> list[int]:
        """Ids of `{"role", "content"}` messages under the chat template.

        With `add_generation_prompt` the assistant's turn is opened, so that the model answers.
        """
        ids = [self.text]
        for message in messages:
            ids += [self.role(message["role"]), *self.encode(message["content"]), self.end]
        return [*ids, self.assistant] if add_generation_prompt else ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of ids; bytes that form no character are left out, as in a `Stream` of the same ids."""
        stream = self.stream(skip_special)
        return "".join(map(stream.push, ids))

    def stream(self, skip_special: bool = True) -> Stream:
        """Open a stream that turns one id after the other into text."""
        return Stream(self._bytes, len(chat.SPECIAL_TOKENS) if skip_special else 0)

    def token_bytes(self, token: int) -> bytes:
        """Bytes that one id stands for, which may be a part of a character."""
        return self._bytes[token]


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a surrogate pair;"
            " expected text that can be written as UTF-8"
        ) from None
    return text


def _token_bytes(backend: "tokenizers.Tokenizer") -> list[bytes]:
    """Bytes of each id: byte-level BPE writes byte b as the b-th character of a printable alphabet."""
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    rest = [b for b in range(256) if b not in plain]
    alphabet = {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(rest)}
    tokens = [token for token, _ in sorted(backend.get_vocab().items(), key=lambda item: item[1])]
    try:
        return [bytes(alphabet[character] for character in token) for token in tokens]
    except KeyError as error:
        raise DataError(f"the tokenizer has a token with {error}, expected byte-level tokens only") from None


def _config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": chat.TEXT,
        "eos_token": chat.TEXT,
        "pad_token": chat.PAD,
        "additional_special_tokens": [chat.END, *chat.ROLES.values()],
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "chat_template": chat.CHAT_TEMPLATE,
    }
