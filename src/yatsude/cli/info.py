"""`yatsude info`."""

from typing import Annotated

import typer

from yatsude.spec.info import find, render

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Argument(metavar="PRESET|FOLDER", help="Name of a preset, or a folder of a model.")],
    context: Annotated[int | None, typer.Option(min=1, help="Tokens of context that attention is counted at.")] = None,
) -> None:
    """Print a model in numbers: parameters, arithmetic, cache, and what is resident beside what is read."""
    print(render(find(model), name=model, context=context))
