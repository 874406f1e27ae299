"""The command `yatsude`: one small file a verb; a room is imported when its verb runs."""

import importlib
import sys

import click
import typer

from yatsude import __version__
from yatsude.errors import MachineError, YatsudeError
from yatsude.progress import say

__all__ = ["VERBS", "main"]

VERBS = {
    "run": "everything below but chat, from nothing to a chat page",
    "data": "fetch, clean and split Japanese text",
    "tokenizer": "learn a tokenizer and pack the text into token shards",
    "train": "pre-train a mixture of experts",
    "tune": "teach it to answer",
    "evaluate": "measure it and write report.html",
    "export": "write a Hugging Face folder and verify it",
    "generate": "continue a text",
    "chat": "talk to a model in the terminal",
    "serve": "open the chat page and the OpenAI-style API",
    "info": "a preset or a model in numbers",
}
EXTRAS = {
    "torch": "model", "safetensors": "model", "tokenizers": "model", "pyarrow": "data", "zstandard": "data",
    "matplotlib": "data", "starlette": "serve", "uvicorn": "serve", "orjson": "serve",
}  # fmt: skip
INTERRUPTED = 130


class Verbs(click.Group):
    """Loads the file of a verb when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order of a model's life."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb's file and make its function a command."""
        if cmd_name not in VERBS:
            return None
        function = importlib.import_module(f"yatsude.cli.{cmd_name}").command
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name=cmd_name)(function)
        return typer.main.get_command(app)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing what they need."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def main() -> None:
    """Run one verb; an error a user can cause is one line, and the exit code says what happened."""
    group = Verbs(
        name="yatsude", help="Raise a Japanese mixture of experts at home: yatsude run.", no_args_is_help=True
    )
    sys.exit(_run(click.version_option(__version__, prog_name="yatsude")(group)))


def _run(group: click.Group) -> int:
    try:
        code = group.main(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except YatsudeError as error:
        return _failed(str(error))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stop:
        say(f"{stop or 'stopped'}; the same command goes on from here")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS:
            raise
        return _failed(f"the package {name} is not installed; run: pip install 'yatsude[{EXTRAS[name]}]'")
    except MemoryError:
        return _failed(str(MachineError("out of memory; choose a smaller model.preset or train.sequences_per_step")))


def _failed(message: str) -> int:
    say(f"error: {message}")
    return 1
