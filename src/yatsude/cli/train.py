"""`yatsude train`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.manifest import digest, read
from yatsude.progress import say

__all__ = ["command"]


def command(
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    run: options.Run = Path("runs/default"),
    restart: options.Restart = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="A key or section that may differ from an earlier attempt's; may be repeated."
        ),
    ] = None,
) -> None:
    """Pre-train on the run's token shards; a stopped training goes on where it was."""
    settings = options.Settings(recipe, sets)
    parallel = settings.of("parallel")
    from yatsude.train import launch  # noqa: PLC0415
    from yatsude.train.build import build  # noqa: PLC0415

    folders = run / "tokenizer", run / "train"
    if launch.is_rank():
        sections = {name: settings.of(name) for name in ("model", "train", "parallel")}
        marks = {"tokens": digest(read(folders[0], "tokenizer"))}
        with launch.as_rank(sections, settings.of("launch"), folders[1], marks) as place:
            summary = build(
                settings.of("model"),
                settings.of("train"),
                *folders,
                restart,
                parallel=place.parallel,
                pulse=place.pulse,
                allow=allow or (),
            )
    elif parallel.ranks > 1:
        from yatsude.train.agent import start  # noqa: PLC0415

        raise typer.Exit(start(parallel, settings.of("launch")))
    else:
        summary = build(settings.of("model"), settings.of("train"), *folders, restart, allow=allow or ())
    say(f"{summary.score()}, after {summary.tokens:,} tokens")
    say(options.following("tune", run, recipe, sets))
