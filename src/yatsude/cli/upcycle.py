"""`yatsude upcycle`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import folders, options
from yatsude.progress import say

__all__ = ["command"]


def command(
    source: Annotated[Path, typer.Argument(metavar="DENSE", help="Folder of a dense model.")],
    target: folders.Target,
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    licence: folders.Licence = None,
) -> None:
    """Make a mixture of experts from a dense model ([upcycle] says how; by default Drop-Upcycling, half of each)."""
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415
    from yatsude.checkpoint.pieces import in_pieces  # noqa: PLC0415
    from yatsude.checkpoint.upcycle import Upcycled  # noqa: PLC0415
    from yatsude.checkpoint.verify import distance  # noqa: PLC0415

    settings = options.Settings(recipe, sets)
    mixture = Upcycled(Folder(source), settings.of("upcycle"))
    config, anew = mixture.config, f"{settings.of('upcycle').ratio:.0%} of each drawn anew"
    say(
        f"{config.model_type}: {config.n_routed_experts} experts of width {config.moe_intermediate_size},"
        f" {config.num_experts_per_tok} a token, {config.n_shared_experts} shared; {anew}"
    )
    done = f"Its experts began as layers of {source.resolve().name}, {anew}."
    folders.write(mixture, target, settings, stage="upcycle", models=(source,), done=done, licence=licence)
    with in_pieces():
        moved, largest = distance(Folder(target), Folder(source))
    say(f"logits moved by up to {moved:.2g} of {largest:.3g} from those of the dense model, before any training")
