"""`yatsude extend`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import folders, options
from yatsude.progress import say

__all__ = ["command"]


def command(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model with its tokenizer.")],
    tokenizer: Annotated[Path, typer.Argument(metavar="TOKENIZER", help="Folder of the new tokenizer.")],
    target: folders.Target,
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    licence: folders.Licence = None,
) -> None:
    """Give a model another vocabulary: known tokens keep their rows, new ones begin as the mean of their old pieces."""
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415
    from yatsude.checkpoint.vocabulary import Extended, ids_for, rows_for  # noqa: PLC0415

    model = Folder(source)
    rows = rows_for(source, tokenizer, model.config.vocab_size)
    fresh = sum(len(pieces) > 1 for pieces in rows)
    left = model.config.vocab_size - len({pieces[0] for pieces in rows if len(pieces) == 1})
    say(
        f"{len(rows):,} tokens: {len(rows) - fresh:,} keep a row, {fresh:,} begin as the mean of their pieces; {left:,}"
        " rows of the model belong to none of them and are left out"
    )
    folders.write(
        Extended(model, rows, ids_for(source, tokenizer, vars(model.config))),
        target,
        options.Settings(recipe, sets),
        stage="extend",
        models=(source,),
        tokenizer=tokenizer,
        done=f"It is {source.resolve().name} over a vocabulary with {fresh:,} new tokens.",
        licence=licence,
    )
