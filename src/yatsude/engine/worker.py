"""An engine in a thread of its own: any thread may submit and cancel, and a busy model never holds up a web server."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from yatsude.engine.answer import Answer, Delta
from yatsude.engine.engine import Engine
from yatsude.engine.settings import SamplingSettings
from yatsude.progress import say

__all__ = ["Worker"]


class Worker:
    """Runs an engine while anything is to be done and sleeps otherwise.

    >>> with Worker(engine) as worker:
    ...     answer = worker.submit(prompt, SamplingSettings(), queue.put)
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._arrived: deque[Answer] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what is under way and end the thread."""
        self.close()
        self._thread.join()

    def close(self) -> None:
        """End every answer with an error that its listener is told, and take no more."""
        with self._wake:
            self._closing = True
            self._wake.notify()

    @property
    def running(self) -> int:
        """Answers that hold a row of the cache."""
        return len(self.engine.scheduler.running)

    @property
    def waiting(self) -> int:
        """Answers that wait for a row."""
        return len(self._arrived) + len(self.engine.scheduler.waiting)

    def submit(self, prompt: Sequence[int], settings: SamplingSettings, listener: Callable[[Delta], None]) -> Answer:
        """Queue a prompt; `listener` is called in the engine's thread. A prompt that cannot be answered raises here."""
        answer = self.engine.answer(prompt, settings, listener)
        with self._wake:
            self._arrived.append(answer)
            self._wake.notify()
        return answer

    def cancel(self, answer: Answer) -> None:
        """Stop an answer at its next token and free its row; a finished one stays as it is."""
        with self._wake:
            answer.cancelled = True
            self._wake.notify()

    def _run(self) -> None:
        scheduler = self.engine.scheduler
        busy = True
        while True:
            with self._wake:
                while not (busy or self._arrived or self._closing):
                    self._wake.wait()
                while self._arrived:
                    scheduler.waiting.append(self._arrived.popleft())
            if self._closing:
                self.engine.fail("the server is shutting down")
                return
            busy = self._step()

    def _step(self) -> bool:
        try:
            return self.engine.step()
        except Exception as error:  # one bad step must not end the thread that all requests depend on
            say(f"engine: {type(error).__name__}: {error}; the answers under way were ended")
            self.engine.fail("the model failed on this request; the server's output says why")
            return True
