"""What the verbs share that make a model folder of others."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yatsude import manifest
from yatsude.cli import options
from yatsude.cli.export import verified
from yatsude.progress import say
from yatsude.recipe import digest

if TYPE_CHECKING:
    from yatsude.checkpoint.write import Weights

__all__ = ["Licence", "Target", "write"]

Target = Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to write; there must be none.")]
Licence = Annotated[
    Path | None,
    typer.Option("--i-have-the-licence", metavar="FILE", help="Licence text of a model that has none with it."),
]


def write(
    weights: "Weights",
    target: Path,
    settings: options.Settings,
    *,
    stage: str,
    models: tuple[Path, ...],
    done: str,
    licence: Path | None,
    tokenizer: Path | None = None,
) -> None:
    """Write `weights`, made of `models` by the verb `stage`, with all papers; say what was compared."""
    from yatsude.checkpoint.export import Origin, export  # noqa: PLC0415

    wanted = settings.of("export")
    if "name" not in settings.given("export"):
        wanted = dataclasses.replace(wanted, name=target.resolve().name)
    sources = (*models, *([tokenizer] if tokenizer else []))
    origin = Origin(
        models=models,
        tokenizer=tokenizer,
        stage=stage,
        inputs=tuple(source for source in sources if (source / manifest.NAME).is_file()),
        done=done,
        licence=licence,
        recipe_sha256=digest({name: settings.of(name) for name in ("export", "upcycle")}),
    )
    say(verified(export(weights, target, wanted, origin)))
