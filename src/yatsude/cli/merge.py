"""`yatsude merge`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import folders, options

__all__ = ["command"]


def command(
    target: folders.Target,
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Folders of models of one shape.")],
    weights: Annotated[
        list[float] | None, typer.Option("--weight", help="Of a model, in their order; 1 each if not given.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Add to this model what the others learned beyond it (task vectors).")
    ] = None,
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    licence: folders.Licence = None,
) -> None:
    """Average models of one shape, or add to a base what others learned beyond it."""
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415
    from yatsude.checkpoint.merge import Merged, refuse_other_tokens  # noqa: PLC0415

    settings, weights = options.Settings(recipe, sets), weights or [1.0] * len(models)
    sources = (base, *models) if base else tuple(models)
    for other in sources[1:]:
        refuse_other_tokens(sources[0], other)
    merged = Merged([Folder(model) for model in models], weights, Folder(base) if base else None)
    parts = ", ".join(f"{weight:g} × {model.resolve().name}" for weight, model in zip(weights, models, strict=True))
    done = f"It is {base.resolve().name} and the task vectors of {parts}." if base else f"It is the average of {parts}."
    folders.write(merged, target, settings, stage="merge", models=sources, done=done, licence=licence)
