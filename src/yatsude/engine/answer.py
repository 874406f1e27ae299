"""One answer under way: its tokens, its text, and who is told about them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from yatsude.engine.sampler import Drawer, Scored
from yatsude.engine.settings import SamplingSettings
from yatsude.engine.text import StopWatch
from yatsude.tokenizer.stream import Stream

__all__ = ["Answer", "Delta", "FinishReason"]

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclasses.dataclass(frozen=True, slots=True)
class Delta:
    """What is new: text, the tokens it took (only with log-probabilities), and at the end the reason."""

    text: str
    scored: tuple[Scored, ...] = ()
    finish_reason: FinishReason | None = None
    tokens: int = 0
    """Tokens generated so far, the one that ended the answer included."""
    error: str | None = None


class Answer:
    """State of one request; `listener` is called with every `Delta`, in the thread that runs the engine."""

    def __init__(
        self,
        prompt: Sequence[int],
        settings: SamplingSettings,
        *,
        limit: int,
        stream: Stream,
        listener: Callable[[Delta], None],
    ) -> None:
        self.prompt, self.settings, self.limit = list(prompt), settings, limit
        self.generated: list[int] = []
        self.drawer = Drawer(settings)
        self.guess: int | None = None
        """The token that may come after the last one, if anybody guessed."""
        self.cancelled = False
        self.finish_reason: FinishReason | None = None
        self._stream, self._watch, self._listener = stream, StopWatch(settings.stop), listener
        self._scored: list[Scored] = []

    def take(self, token: int, scored: Scored | None, *, ends: bool) -> None:
        """Add a drawn token; `ends` says that it closes the text, and is not part of it."""
        self.generated.append(token)
        if scored is not None and not ends:
            self._scored.append(scored)
        shown = "" if ends else self._watch.push(self._stream.push(token))
        if ends or self._watch.stopped:
            self._tell(shown + self._watch.flush(), "stop")
        elif len(self.generated) >= self.limit:
            self._tell(shown + self._watch.flush(), "length")
        elif shown:
            self._tell(shown)

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """Close the answer from outside: it was cancelled, or the engine failed."""
        self._tell("", reason, error)

    def _tell(self, text: str, reason: FinishReason | None = None, error: str | None = None) -> None:
        self.finish_reason = reason
        scored, self._scored = tuple(self._scored), []
        self._listener(Delta(text, scored, reason, len(self.generated), error))
