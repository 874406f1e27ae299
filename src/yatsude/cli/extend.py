"""`yatsude extend`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.cli.convert import Licence, inputs_of, named
from yatsude.cli.export import verified
from yatsude.progress import say

__all__ = ["command"]


def command(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model with its tokenizer.")],
    tokenizer: Annotated[Path, typer.Argument(metavar="TOKENIZER", help="Folder of the new tokenizer.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to write.")],
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    licence: Licence = None,
) -> None:
    """Give a model another vocabulary: known tokens keep their rows, new ones begin as the mean of their old pieces."""
    from yatsude.checkpoint.export import Origin, export  # noqa: PLC0415
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415
    from yatsude.checkpoint.vocabulary import Extended, ids_for, rows_for  # noqa: PLC0415

    settings, model = options.Settings(recipe, sets), Folder(source)
    rows = rows_for(source, tokenizer, model.config.vocab_size)
    fresh = sum(len(pieces) > 1 for pieces in rows)
    say(f"{len(rows):,} tokens: {len(rows) - fresh:,} keep a row, {fresh:,} begin as the mean of their pieces")
    origin = Origin(
        models=(source,),
        tokenizer=tokenizer,
        inputs=inputs_of(source, tokenizer),
        stage="extend",
        done=f"It is {source.resolve().name} over a vocabulary with {fresh:,} new tokens.",
        licence=licence,
    )
    extended = Extended(model, rows, ids_for(source, tokenizer, model.config))
    say(verified(export(extended, target, named(settings, target), origin)))
