"""`yatsude convert`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from yatsude.cli import options
from yatsude.cli.export import verified
from yatsude.progress import say

__all__ = ["Licence", "command", "inputs_of"]

Licence = Annotated[
    Path | None,
    typer.Option("--i-have-the-licence", metavar="FILE", help="Licence text of a model that has none with it."),
]


def command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of a model, of whatever origin.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to write.")],
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    licence: Licence = None,
) -> None:
    """Write a model folder again, in another precision ([export] dtype) or other shards, and compare before done."""
    from yatsude.checkpoint.export import Origin, export  # noqa: PLC0415
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415

    settings = options.Settings(recipe, sets)
    origin = Origin(
        models=(source,),
        inputs=inputs_of(source),
        stage="convert",
        done=f"It is {source.resolve().name}, stored anew.",
        licence=licence,
    )
    figures = export(Folder(source), target, named(settings, target), origin)
    say(verified(figures))


def named(settings: options.Settings, target: Path) -> Any:
    """Export settings whose title is the folder's name, unless one is given."""
    import dataclasses  # noqa: PLC0415

    found = settings.of("export")
    return found if "name" in settings.given("export") else dataclasses.replace(found, name=target.resolve().name)


def inputs_of(*sources: Path) -> tuple[Path, ...]:
    """Those of the folders that a stage of ours wrote."""
    from yatsude import manifest  # noqa: PLC0415

    return tuple(source for source in sources if (source / manifest.NAME).is_file())
