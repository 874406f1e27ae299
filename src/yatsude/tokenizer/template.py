"""A model's own chat template, in the Jinja that transformers reads, and which of its output is whose words.

A template makes one string of a conversation, in which a user's "<|end|>" and the template's own look the same. So the
template is given marks in place of the messages' words; where the marks come out is where the words belong.
"""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from yatsude.errors import DataError, RequestError

__all__ = ["Span", "Template"]

Span = tuple[str, int | None]
"""A stretch of a rendered conversation, and the place of the message whose words it is; None: the template's own."""

MARK = "\ue000{}\ue001"
"""Two characters of the private use area; the words themselves, which might hold them, are not there yet."""
MARKS = re.compile("\ue000([0-9]+)\ue001")


class Template:
    """A chat template and the special tokens that it names, such as `bos_token`.

    >>> Template("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", {}).render(
    ...     [{"role": "user", "content": "こんにちは"}], False
    ... )
    [('<user>', None), ('こんにちは', 0)]
    """

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        from jinja2 import TemplateSyntaxError  # noqa: PLC0415
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _generation()]
        )
        environment.filters["tojson"] = lambda value, **more: json.dumps(value, ensure_ascii=False, **more)
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().astimezone().strftime(form)
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise DataError(f"the chat template is damaged, line {error.lineno}: {error.message}") from None
        self._tokens = dict(tokens)

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> list[Span]:
        """Return the conversation as spans; one span that is nobody's where the template rewrites the words."""
        plain = self._rendered(messages, add_generation_prompt)
        for words in (str, str.strip):  # as they are; without the space around them, which some templates trim
            spans = self._marked([words(message["content"]) for message in messages], messages, add_generation_prompt)
            if "".join(text for text, _ in spans) == plain:
                return spans
        return [(plain, None)]

    def _marked(
        self, words: Sequence[str], messages: Sequence[Mapping[str, str]], add_generation_prompt: bool
    ) -> list[Span]:
        """Render with marks in place of `words`, and put the words where the marks came out."""
        marked = [
            {**message, "content": _replaced(message["content"], word, MARK.format(place))}
            for place, (message, word) in enumerate(zip(messages, words, strict=True))
        ]
        parts = MARKS.split(self._rendered(marked, add_generation_prompt))  # text, place, text, place, text
        spans: list[Span] = [(parts[0], None)]
        for place, text in zip(parts[1::2], parts[2::2], strict=True):
            spans += [(words[int(place)], int(place)), (text, None)]
        return spans

    def _rendered(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError  # noqa: PLC0415

        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._tokens,
            )
        except (TemplateError, TypeError, KeyError, AttributeError, ValueError) as error:
            raise RequestError(f"the model's chat template refuses this conversation: {error}") from None


def _replaced(content: str, word: str, mark: str) -> str:
    return content.replace(word, mark, 1) if word else content + mark


def _refuse(message: str) -> None:
    from jinja2 import TemplateError  # noqa: PLC0415

    raise TemplateError(message)


def _generation() -> Any:
    """Let `{% generation %}` pass, with which some templates frame what the assistant said."""
    from jinja2 import nodes  # noqa: PLC0415
    from jinja2.ext import Extension  # noqa: PLC0415
    from jinja2.parser import Parser  # noqa: PLC0415

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return Generation
