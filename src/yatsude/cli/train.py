"""`yatsude train`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.progress import say

__all__ = ["command"]


def command(
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    run: options.Run = Path("runs/default"),
    restart: options.Restart = False,
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
    if launch.is_rank():
        with launch.as_rank({name: settings.of(name) for name in ("model", "train", "parallel")}):
            sections = settings.of("model"), settings.of("train")
            summary = build(*sections, *folders, restart, parallel, settings.of("watch"))
    elif parallel.ranks > 1:
        raise typer.Exit(launch.start(parallel))
    else:
        summary = build(settings.of("model"), settings.of("train"), *folders, restart, watch=settings.of("watch"))
    say(f"{summary.score()}, after {summary.tokens:,} tokens" + (f"; {summary.step}" if summary.step else ""))
    say(options.following("tune", run, recipe, sets))
