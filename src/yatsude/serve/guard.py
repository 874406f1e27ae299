"""What holds for every answer: strict headers, and no entry for other web pages that a user happens to have open."""

from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yatsude.serve.errors import ApiError, json_response

__all__ = ["LOOPBACK", "Guard"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Middleware: refuses requests that another site's script sent, and adds the headers.

    A server on the loopback address is also only reachable under a loopback name, so that a foreign host name that was
    pointed at it (DNS rebinding) gets nothing.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.loopback = app, host in LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope))
        if refusal is not None:
            await json_response(refusal.body, refusal.status)(scope, receive, _with_headers(send))
            return
        await self.app(scope, receive, _with_headers(send))

    def _refusal(self, headers: Headers) -> ApiError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.loopback and host.rpartition(":")[0].strip("[]") not in LOOPBACK and host.strip("[]") not in LOOPBACK:
            return ApiError(403, f"host '{host}' is not this machine; open http://127.0.0.1 with the port instead")
        if origin is not None and origin.partition("://")[2] != host:
            return ApiError(403, f"a page of {origin} may not use this server")
        return None


def _with_headers(send: Send) -> Callable[[Message], Any]:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-cache")
        await send(message)

    return sending
