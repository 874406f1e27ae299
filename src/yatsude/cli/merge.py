"""`yatsude merge`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.cli.convert import Licence, inputs_of, named
from yatsude.cli.export import verified
from yatsude.errors import CheckpointError
from yatsude.files import sha256_of
from yatsude.progress import say

__all__ = ["command"]

TOKENIZER = "tokenizer.json"


def command(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to write.")],
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Folders of models of one shape.")],
    weights: Annotated[
        list[float] | None, typer.Option("--weight", help="Of a model, in their order; 1 each if not given.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Add to this model what the others learned beyond it (task vectors).")
    ] = None,
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    licence: Licence = None,
) -> None:
    """Average models of one shape, or add to a base what others learned beyond it."""
    from yatsude.checkpoint.export import Origin, export  # noqa: PLC0415
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415
    from yatsude.checkpoint.merge import Merged  # noqa: PLC0415

    settings = options.Settings(recipe, sets)
    for other in (*models[1:], *([base] if base else [])):
        _same_tokens(models[0], other)
    weights = weights or [1.0] * len(models)
    merged = Merged([Folder(model) for model in models], weights, Folder(base) if base else None)
    sources = (base, *models) if base else tuple(models)
    parts = ", ".join(f"{weight:g} × {model.resolve().name}" for weight, model in zip(weights, models, strict=True))
    done = f"It is {base.resolve().name} and the task vectors of {parts}." if base else f"It is the average of {parts}."
    origin = Origin(
        models=sources,
        inputs=inputs_of(*sources),
        stage="merge",
        done=done,
        licence=licence,
    )
    say(verified(export(merged, target, named(settings, target), origin)))


def _same_tokens(one: Path, other: Path) -> None:
    """Refuse models that read other tokens under the same numbers."""
    mine, theirs = one / TOKENIZER, other / TOKENIZER
    if mine.is_file() and theirs.is_file() and sha256_of(mine) != sha256_of(theirs):
        raise CheckpointError(f"{mine} and {theirs} differ: rows of the models mean other tokens; merge models of one")
