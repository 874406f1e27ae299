"""The answers to one request, from the engine's thread to the event loop, for as long as the client listens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from yatsude.engine.answer import Delta
from yatsude.engine.worker import Worker
from yatsude.errors import RequestError
from yatsude.serve.errors import ApiError
from yatsude.serve.query import Query

__all__ = ["Hearing", "unless_gone"]

T = TypeVar("T")


class Hearing:
    """Submits every choice of a query; iterate over (choice, Delta), or None after `ping_s` of silence."""

    def __init__(self, worker: Worker, query: Query, *, max_waiting: int, ping_s: float = 15.0) -> None:
        self._worker, self._ping_s = worker, ping_s
        self._news: asyncio.Queue[tuple[int, Delta]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.prompt_tokens = sum(len(prompt) for prompt in query.prompts)
        self.choices = len(query.prompts) * query.n
        self._check(worker, query, max_waiting)
        self._answers = [
            worker.submit(query.prompts[choice // query.n], settings, self._listener(choice))
            for choice, settings in enumerate(query.sampling.seeded(query.n) * len(query.prompts))
        ]

    def _check(self, worker: Worker, query: Query, max_waiting: int) -> None:
        """Refuse all choices before the first is submitted."""
        for prompt in query.prompts:
            try:
                worker.engine.answer(prompt, query.sampling, _deaf)
            except RequestError as error:
                long = len(prompt) >= worker.engine.context
                raise ApiError(400, str(error), code="context_length_exceeded" if long else None) from None
        if self.choices > max_waiting:
            raise ApiError(
                400, f"{self.choices} answers are asked for, at most {max_waiting} may be at once; ask for less"
            )
        if worker.waiting + self.choices > max_waiting + worker.engine.scheduler.max_rows - worker.running:
            raise ApiError(
                503,
                f"{worker.waiting} answers are waiting, at most {max_waiting} may; try again in a moment",
                code="overloaded",
                headers={"Retry-After": "2"},
            )

    async def __aiter__(self) -> AsyncIterator[tuple[int, Delta] | None]:
        """Yield news until every choice is finished."""
        left = self.choices
        while left:
            try:
                choice, delta = await asyncio.wait_for(self._news.get(), self._ping_s)
            except TimeoutError:
                yield None
                continue
            left -= delta.finish_reason is not None
            yield choice, delta

    def close(self) -> None:
        """Stop whatever is still being written."""
        for answer in self._answers:
            if answer.finish_reason is None:
                self._worker.cancel(answer)

    def _listener(self, choice: int) -> Callable[[Delta], None]:
        def listen(delta: Delta) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: the server is shutting down
                self._loop.call_soon_threadsafe(self._news.put_nowait, (choice, delta))

        return listen


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """Do `work` and return its result; None, and the work is cancelled, when the client goes away first."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _deaf(_: Delta) -> None:
    """Listen to nothing."""
