"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from yatsude.errors import RequestError

__all__ = ["HANDLERS", "ApiError", "json_response"]


class ApiError(Exception):
    """A request that is answered with a status of 400 or more."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that a client receives."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with `body` as JSON."""
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError), "registered for this class alone"
    return json_response(error.body, error.status, error.headers)


def _request_error(request: Request, error: Exception) -> Response:
    return _api_error(request, ApiError(400, str(error)))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for this class alone"
    words = {
        404: f"no page or endpoint at {request.url.path}; see GET /v1/models and POST /v1/chat/completions",
        405: f"{request.url.path} does not answer {request.method}; expected {_allowed(error)}",
    }
    message = words.get(error.status_code, HTTPStatus(error.status_code).phrase)
    code = "not_found" if error.status_code == 404 else None
    return _api_error(request, ApiError(error.status_code, message, code=code, headers=error.headers))


def _allowed(error: HTTPException) -> str:
    return (error.headers or {}).get("Allow", "another method")


def _unforeseen(request: Request, _: Exception) -> Response:
    """Tell the client nothing of our insides; Starlette raises the error again, and uvicorn prints it for the owner."""
    return _api_error(request, ApiError(500, "the server failed on this request; its output says why"))


HANDLERS = {ApiError: _api_error, RequestError: _request_error, HTTPException: _http_error, Exception: _unforeseen}
