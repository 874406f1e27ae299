"""The endpoints: models, chat completions, completions, health."""

import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from yatsude.engine.answer import Delta
from yatsude.engine.worker import Worker
from yatsude.serve import query as reading
from yatsude.serve import wire
from yatsude.serve.errors import ApiError, json_response
from yatsude.serve.hearing import Hearing, unless_gone
from yatsude.serve.query import Query
from yatsude.serve.settings import ServeSettings
from yatsude.spec.tasks import TASKS

__all__ = ["Api"]

CLIENT_GONE = 499


class Api:
    """One model behind OpenAI's interface."""

    def __init__(self, worker: Worker, name: str, settings: ServeSettings) -> None:
        self.worker, self.name, self.settings = worker, name, settings
        self._since = int(time.time())

    async def health(self, _: Request) -> Response:
        """Say that the server is up, and how busy it is."""
        counts = {"running": self.worker.running, "waiting": self.worker.waiting}
        return json_response({"status": "ok", "model": self.name, **counts})

    async def models(self, _: Request) -> Response:
        """List the one model."""
        return json_response({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        """Describe the model of that name."""
        self._known(request.path_params["name"])
        return json_response(self._card())

    async def tasks(self, _: Request) -> Response:
        """List what the model was tuned for, for the buttons of the chat page."""
        tasks = [{"name": name, "label": task.label, "text": task.prompt("")} for name, task in TASKS.items()]
        return json_response({"tasks": tasks})

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        values = reading.parse(await self._body(request))
        query = reading.chat(values, self.worker.engine.tokenizer, self.settings)
        return await self._respond(request, query, wire.Chat(self.name, self.worker.engine.tokenizer))

    async def completion(self, request: Request) -> Response:
        """Continue a text."""
        values = reading.parse(await self._body(request))
        query = reading.completion(values, self.worker.engine.tokenizer, self.settings)
        return await self._respond(request, query, wire.Text(self.name, self.worker.engine.tokenizer))

    def _card(self) -> dict[str, Any]:
        context = self.worker.engine.context
        head = {"id": self.name, "object": "model", "created": self._since, "owned_by": "yatsude"}
        return {**head, "max_model_len": context}

    def _known(self, name: str | None) -> None:
        if name is not None and name != self.name:
            raise ApiError(
                404, f"no model '{name}' here; this server has '{self.name}'", param="model", code="model_not_found"
            )

    async def _body(self, request: Request) -> bytes:
        most, body = int(self.settings.max_body_mb * 1e6), bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                raise ApiError(413, f"the body is larger than {most} bytes; shorten the conversation")
        return bytes(body)

    async def _respond(self, request: Request, query: Query, form: wire.Chat | wire.Text) -> Response:
        self._known(query.model)
        hearing = Hearing(self.worker, query, max_waiting=self.settings.max_waiting)
        if query.stream:
            return _Stream(hearing, _events(hearing, query, form))
        try:
            answers = await unless_gone(request.receive, _collect(hearing))
        finally:
            hearing.close()
        if answers is None:
            return Response(status_code=CLIENT_GONE)
        counts = wire.usage(hearing.prompt_tokens, sum(deltas[-1].tokens for deltas in answers))
        return json_response(form.answer(answers, counts))


class _Stream(Response):
    """Server-sent events until the answer ends or the client goes; either way the engine's rows are free after it."""

    media_type = "text/event-stream"

    def __init__(self, hearing: Hearing, events: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hearing, self._events = hearing, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events as they come."""
        try:
            await unless_gone(receive, self._write(send))
        finally:
            self._hearing.close()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in self._events:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _collect(hearing: Hearing) -> list[list[Delta]]:
    choices: list[list[Delta]] = [[] for _ in range(hearing.choices)]
    async for news in hearing:
        if news is not None:
            choice, delta = news
            if delta.error is not None:
                raise ApiError(500, delta.error)
            choices[choice].append(delta)
    return choices


async def _events(hearing: Hearing, query: Query, form: wire.Chat | wire.Text) -> AsyncIterator[bytes]:
    """Opening, text, one ending a choice, then the usage if asked for, then [DONE]."""
    rest: dict[str, Any] = {"usage": None} if query.include_usage else {}
    for choice in range(hearing.choices):
        for part in form.opening(choice):
            yield wire.event(form.chunk([part], **rest))
    tokens = 0
    async for news in hearing:
        if news is None:
            yield wire.PING
            continue
        choice, delta = news
        if delta.error is not None:
            yield wire.event(ApiError(500, delta.error).body)
            return
        for part in form.pieces(choice, delta):
            yield wire.event(form.chunk([part], **rest))
        tokens += delta.tokens if delta.finish_reason is not None else 0
    if query.include_usage:
        yield wire.event(form.chunk([], usage=wire.usage(hearing.prompt_tokens, tokens)))
    yield wire.DONE
