"""`yatsude convert`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import folders, options

__all__ = ["command"]


def command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of a model, of whatever origin.")],
    target: folders.Target,
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    licence: folders.Licence = None,
) -> None:
    """Write a model folder again, in another precision ([export] dtype) or other shards, and compare before done."""
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415

    done = f"It is {source.resolve().name}, stored anew."
    settings = options.Settings(recipe, sets)
    folders.write(Folder(source), target, settings, stage="convert", models=(source,), done=done, licence=licence)
