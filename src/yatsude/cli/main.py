"""The command `yatsude`: one small file a verb; a room is imported when its verb runs."""

import errno
import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from yatsude import __version__
from yatsude.errors import YatsudeError
from yatsude.progress import cry, say

__all__ = ["VERBS", "application", "main"]

VERBS = (
    "run", "data", "tokenizer", "train", "tune", "evaluate", "export", "generate", "chat", "serve",
    "router", "info", "plan", "launch", "watch", "verify", "convert", "upcycle", "merge", "extend", "gguf",
)  # fmt: skip
"""In the order of a model's life; then those that go from folder to folder."""
EXTRAS = {
    "torch": "model", "safetensors": "model", "tokenizers": "model", "pyarrow": "data", "zstandard": "data",
    "matplotlib": "data", "starlette": "serve", "uvicorn": "serve", "orjson": "serve", "gguf": "gguf",
}  # fmt: skip
"""Which extra brings a package."""
INTERRUPTED = 130


def application() -> typer.Typer:
    """Build the command with all its verbs."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_about)
    for verb in VERBS:
        _add(app, verb)
    return app


def _add(app: typer.Typer, verb: str) -> None:
    """Add a verb; a module with `BELOW` has verbs of its own, beside what it does without one."""
    module = importlib.import_module(f"yatsude.cli.{verb}")
    below: dict[str, Callable[..., None]] = getattr(module, "BELOW", {})
    if not below:
        app.command(verb)(_reported(module.command))
        return
    group = typer.Typer(rich_markup_mode=None)
    group.callback(invoke_without_command=True)(_reported(module.command))
    for name, command in below.items():
        group.command(name)(_reported(command))
    app.add_typer(group, name=verb)


def main() -> None:
    """Run one verb; an error a user can cause is one line, and the exit code says what happened."""
    try:
        application()()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # all is written; a thread in the middle of a product is not waited for
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"yatsude {__version__}")
        raise typer.Exit


def _about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Raise a Japanese mixture of experts at home; `yatsude run` does it all."""


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what goes wrong in a verb into one line and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except YatsudeError as error:
            raise _failure(str(error)) from None
        except KeyboardInterrupt as stop:
            restart = " without --restart" if kwargs.get("restart") else ""
            say(f"{stop}; the same command{restart} goes on from here" if str(stop) else "stopped")
            raise typer.Exit(INTERRUPTED) from None
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name not in EXTRAS:
                raise
            raise _failure(f"the package {name} is missing; run: pip install 'yatsude[{EXTRAS[name]}]'") from None
        except OSError as error:
            raise _failure(_why(error)) from None
        except MemoryError:
            raise _failure("out of memory; choose a smaller model.preset or train.sequences_per_step") from None

    return run


def _why(error: OSError) -> str:
    """What the machine refused, in one line; what has no file and is no full disk is passed on as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk full; make room and run the same command again"
    if error.filename is None:
        raise error
    return f"{error.filename}: {error.strerror}; check the path, and whether you may read and write there"


def _failure(message: str) -> typer.Exit:
    cry(f"error: {message}")
    return typer.Exit(1)
