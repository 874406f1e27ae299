"""How a conversation becomes one string: special tokens and the chat template.

    <|endoftext|><|user|>こんにちは<|end|><|assistant|>こんにちは。<|end|>

`<|endoftext|>` both opens and closes a text, so that packed documents are separated by one token.
"""

from collections.abc import Mapping, Sequence

from yatsude.errors import RequestError

__all__ = ["ASSISTANT", "CHAT_TEMPLATE", "END", "PAD", "ROLES", "SPECIAL_TOKENS", "SYSTEM", "TEXT", "USER", "render"]

TEXT = "<|endoftext|>"
PAD = "<|pad|>"
END = "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}

SPECIAL_TOKENS = (TEXT, PAD, END, SYSTEM, USER, ASSISTANT)
"""In the order of their ids, from 0."""

CHAT_TEMPLATE = (
    "{{ '<|endoftext|>' }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The same as `render`, in the Jinja that transformers, vLLM and SGLang read."""


def render(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """Join `{"role", "content"}` messages; with `add_generation_prompt` the assistant's turn is opened.

    >>> render([{"role": "user", "content": "やあ"}])
    '<|endoftext|><|user|>やあ<|end|><|assistant|>'
    """
    parts = [TEXT]
    for message in messages:
        if message["role"] not in ROLES:
            raise RequestError(f"role '{message['role']}' is unknown; expected one of {', '.join(ROLES)}")
        parts += [ROLES[message["role"]], message["content"], END]
    return "".join([*parts, ASSISTANT] if add_generation_prompt else parts)
