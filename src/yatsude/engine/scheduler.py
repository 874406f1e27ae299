"""Who runs next: a waiting prompt as soon as a row is free, otherwise one token for every answer under way."""

import dataclasses
from collections import deque
from collections.abc import Callable

from yatsude.engine.answer import Answer

__all__ = ["Batch", "Scheduler"]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What one step works on: a whole prompt in row `first`, or one token for all rows from 0."""

    answers: list[Answer]
    first: int
    prefill: bool


class Scheduler:
    """Answers that wait, and those that run; the place in `running` is the row of the cache."""

    def __init__(self, max_rows: int, move: Callable[[int, int], None]) -> None:
        """Take how many answers may run, and what moves a cache row (from, to)."""
        self.max_rows, self._move = max_rows, move
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []

    def schedule(self) -> Batch | None:
        """Choose the next batch, or None when nothing is to be done."""
        if self.waiting and len(self.running) < self.max_rows:
            answer = self.waiting.popleft()
            self.running.append(answer)
            return Batch([answer], len(self.running) - 1, prefill=True)

        if self.running:
            return Batch(list(self.running), 0, prefill=False)
        return None

    def retire(self) -> None:
        """Take finished answers out; the last row moves into each gap, so that rows stay side by side."""
        for row in reversed(range(len(self.running))):
            if self.running[row].finish_reason is not None:
                last = self.running.pop()
                if row < len(self.running):
                    self.running[row] = last
                    self._move(len(self.running), row)

    def cancel(self) -> None:
        """End every answer that nobody waits for any more."""
        gone = [answer for answer in (*self.waiting, *self.running) if answer.cancelled]
        if gone:
            self.end(gone, lambda answer: answer.end("cancelled"))

    def end(self, answers: list[Answer], close: Callable[[Answer], None]) -> None:
        """Close the given answers and give their rows back."""
        for answer in answers:
            close(answer)
        self.waiting = deque(answer for answer in self.waiting if answer.finish_reason is None)
        self.retire()
