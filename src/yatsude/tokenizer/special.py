"""Tokens that are commands: which open and close a text or a message, and the files that say so."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from yatsude.errors import DataError
from yatsude.spec import chat

__all__ = ["CONFIG", "OWN", "TEMPLATE", "Special", "is_control"]

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
PIPED = re.compile(r"<[|｜].*[|｜]>")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Special:
    """What `tokenizer_config.json` and `chat_template.jinja` say of a tokenizer."""

    bos: str | None
    """Opens a text; None where texts open without a token."""
    eos: str
    """Closes a text, and separates texts in token shards."""
    pad: str | None
    template: str | None
    """The chat template; None: the model was not made for conversations."""

    @classmethod
    def read(cls, folder: Path) -> "Special":
        """Read them as transformers does: a template in a file of its own goes before one in the config."""
        path = folder / CONFIG
        try:
            page = json.loads(path.read_text(encoding="utf-8"))
            own = folder / TEMPLATE
            template = own.read_text(encoding="utf-8") if own.is_file() else _template(page.get("chat_template"))
            names = {name: _text(page.get(f"{name}_token")) for name in ("bos", "eos", "pad")}
        except FileNotFoundError:
            raise DataError(f"no {CONFIG} in {folder}, which names the token that ends a text") from None
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error!r}); copy it again from where the model came") from None
        if names["eos"] is None:
            raise DataError(f"{path} has no eos_token; name the token that ends a text")
        return cls(bos=names["bos"], eos=names["eos"], pad=names["pad"], template=template)

    def page(self) -> dict[str, Any]:
        """Return the content of a tokenizer_config.json."""
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos,
            "eos_token": self.eos,
            "pad_token": self.pad,
            "additional_special_tokens": [chat.END, *chat.ROLES.values()],
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            "add_eos_token": False,
            "chat_template": self.template,
        }


OWN = Special(bos=chat.TEXT, eos=chat.TEXT, pad=chat.PAD, template=chat.CHAT_TEMPLATE)
"""Of the tokenizers that are trained here."""


def is_control(token: str, special: bool) -> bool:
    """Whether a token that was added to a vocabulary is a command: flagged so, or written between pipes.

    DeepSeek-V3 does not flag its `<｜User｜>`; a user's text must not be able to say it all the same.
    """
    return special or PIPED.fullmatch(token) is not None


def _text(token: Any) -> str | None:
    """A token is a text, or an object with its text."""
    said = token["content"] if isinstance(token, dict) else token
    if not isinstance(said, str | None):
        raise TypeError(f"a token is {said!r}, not text")
    return said


def _template(said: Any) -> str | None:
    """A template is a text, or a list of named ones."""
    return {one["name"]: one["template"] for one in said}.get("default") if isinstance(said, list) else said
