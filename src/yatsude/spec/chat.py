"""How a conversation becomes one string: special tokens and the chat template.

    <|endoftext|><|user|>こんにちは<|end|><|assistant|>こんにちは。<|end|>

`<|endoftext|>` both opens and closes a text, so that packed documents are separated by one token.
"""

__all__ = [
    "ASSISTANT",
    "CHAT_TEMPLATE",
    "END",
    "PAD",
    "ROLES",
    "SPECIAL_TOKENS",
    "SYSTEM",
    "TEMPERATURE",
    "TEXT",
    "TOP_P",
    "USER",
]

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
"""The form above, in the Jinja that transformers, vLLM and SGLang read."""

TEMPERATURE, TOP_P = 0.7, 0.95
"""How an answer is drawn where nobody says otherwise."""
