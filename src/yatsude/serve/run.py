"""From settings to a listening server."""

import contextlib
import errno
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from yatsude.engine.load import load
from yatsude.engine.settings import EngineSettings
from yatsude.engine.worker import Worker
from yatsude.errors import MachineError
from yatsude.progress import say
from yatsude.serve.app import application
from yatsude.serve.guard import LOOPBACK
from yatsude.serve.settings import ServeSettings

__all__ = ["Server", "bind", "run"]

Ready = Callable[[str], None]


def run(
    settings: ServeSettings, model_folder: Path, engine: EngineSettings | None = None, ready: Ready | None = None
) -> None:
    """Serve an exported model until Ctrl-C; `ready` is called with the page's address once it answers."""
    with contextlib.closing(bind(settings)) as listener:  # first: a taken port is told before the model is read
        name = settings.model_name or model_folder.resolve().name
        if settings.host not in LOOPBACK:
            say(f"listening on {settings.host}: who reaches this machine can use the model; there is no password")
        with Worker(load(model_folder, engine)) as worker, contextlib.suppress(KeyboardInterrupt):
            Server(application(worker, name, settings), listener, ready or _announce, worker.close).run()


def bind(settings: ServeSettings) -> socket.socket:
    """Take the address and port, listening; the port is a free one where the settings say 0."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise MachineError(_why(error, settings)) from None
    return listener


def _why(error: OSError, settings: ServeSettings) -> str:
    another = f"choose another with --set serve.port={settings.port % 65535 + 1}"
    if error.errno == errno.EADDRINUSE:
        return f"port {settings.port} on {settings.host} is in use; stop the program that holds it, or {another}"
    if error.errno == errno.EACCES:
        return f"port {settings.port} needs the rights of an administrator; {another}, or any above 1023"
    return f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); give an address of this machine"


class Server(uvicorn.Server):
    """A web server on a socket that is already bound; `ending` is called before it waits for open requests to end."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, ready: Ready, ending: Callable[[], None] = lambda: None
    ) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)
        self._listener, self._ready, self._ending = listener, ready, ending
        host, port = listener.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        self.url = f"http://{shown}:{port}"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        super().run(sockets or [self._listener])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the answers under way end, then the requests that wait for them."""
        self._ending()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        self._ready(self.url)


def _announce(url: str) -> None:
    say(f"the chat page is at {url}, the API at {url}/v1; stop with Ctrl-C")
