"""`yatsude upcycle`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.cli.convert import Licence, inputs_of, named
from yatsude.cli.export import verified
from yatsude.progress import say

__all__ = ["command"]


def command(
    source: Annotated[Path, typer.Argument(metavar="DENSE", help="Folder of a dense model.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to write.")],
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    licence: Licence = None,
) -> None:
    """Make a mixture of experts from a dense model ([upcycle] says how; by default Drop-Upcycling, half of each)."""
    from yatsude.checkpoint.export import Origin, export  # noqa: PLC0415
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415
    from yatsude.checkpoint.upcycle import Upcycled  # noqa: PLC0415

    settings = options.Settings(recipe, sets)
    upcycle = settings.of("upcycle")
    mixture = Upcycled(Folder(source), upcycle)
    config = mixture.config
    say(
        f"{config.model_type}: {config.n_routed_experts} experts of width {config.moe_intermediate_size},"
        f" {config.num_experts_per_tok} a token, {config.n_shared_experts} shared"
    )
    origin = Origin(
        models=(source,),
        inputs=inputs_of(source),
        stage="upcycle",
        done=f"Its experts began as layers of {source.resolve().name}, {upcycle.ratio:.0%} of each drawn anew.",
        licence=licence,
    )
    say(verified(export(mixture, target, named(settings, target), origin)))
