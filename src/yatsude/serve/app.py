"""The web application: OpenAI's endpoints and the chat page."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from yatsude.engine.worker import Worker
from yatsude.serve.api import Api
from yatsude.serve.errors import HANDLERS
from yatsude.serve.guard import Guard
from yatsude.serve.settings import ServeSettings

__all__ = ["STATIC", "application"]

STATIC = Path(__file__).parent / "static"


def application(worker: Worker, name: str, settings: ServeSettings) -> ASGIApp:
    """Build the application over a running worker; `name` is what clients call the model."""
    api = Api(worker, name, settings)
    routes = [
        Route("/", _page),
        Route("/tasks", api.tasks),
        Route("/health", api.health),
        Route("/v1/models", api.models),
        Route("/v1/models/{name:path}", api.model),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/completions", api.completion, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    # around the whole application, not one of its middlewares: an unforeseen error's answer is guarded too
    return Guard(Starlette(routes=routes, exception_handlers=HANDLERS), settings.host)


async def _page(_: Request) -> FileResponse:
    return FileResponse(STATIC / "index.html")
