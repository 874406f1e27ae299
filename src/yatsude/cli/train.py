"""`yatsude train`."""

import json
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
    watch: Annotated[
        str, typer.Option(metavar="NAMES", help="Figures also for tensorboard, mlflow, wandb: names with commas.")
    ] = "",
) -> None:
    """Pre-train on the run's token shards; a stopped training goes on where it was."""
    if watch:
        sets = [*(sets or ()), f"watch.sinks={json.dumps(watch.split(','))}"]
    settings = options.Settings(recipe, sets)
    parallel = settings.of("parallel")
    from yatsude.train import launch  # noqa: PLC0415
    from yatsude.train.build import build  # noqa: PLC0415

    folders = run / "tokenizer", run / "train"
    model, train, watched = (settings.of(name) for name in ("model", "train", "watch"))
    if launch.is_rank():
        sections = {"model": model, "train": train, "parallel": parallel}
        marks = {"tokens": digest(read(folders[0], "tokenizer"))}
        with launch.as_rank(sections, settings.of("launch"), folders[1], marks) as place:
            summary = build(
                model,
                train,
                *folders,
                restart,
                parallel=place.parallel,
                pulse=place.pulse,
                allow=allow or (),
                watch=watched,
            )
    elif parallel.ranks > 1:
        from yatsude.train.agent import start  # noqa: PLC0415

        raise typer.Exit(start(parallel, settings.of("launch")))
    else:
        summary = build(model, train, *folders, restart, allow=allow or (), watch=watched)
    say(f"{summary.score()}, after {summary.tokens:,} tokens" + (f"; {summary.step}" if summary.step else ""))
    say(options.following("tune", run, recipe, sets))
