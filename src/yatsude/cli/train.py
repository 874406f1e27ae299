"""`yatsude train`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.manifest import digest, read
from yatsude.plan.job import Job
from yatsude.plan.refuse import refuse
from yatsude.progress import say
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.settings import ModelSettings, resolve
from yatsude.train.settings import TrainSettings

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

        def marks() -> dict[str, str]:
            return {"tokens": digest(read(folders[0], "tokenizer"))}

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

        read(folders[0], "tokenizer")  # or refuse
        if not train.base:
            _refuse(model, train, parallel)
        raise typer.Exit(start(parallel, settings.of("launch")))
    else:
        if parallel != ParallelSettings():
            say("[parallel] has one rank, and one process trains without what it says")
        summary = build(model, train, *folders, restart, allow=allow or (), watch=watched)
    say(f"{summary.score()}, after {summary.tokens:,} tokens" + (f"; {summary.step}" if summary.step else ""))
    say(options.following("tune", run, recipe, sets))


def _refuse(model: ModelSettings, train: TrainSettings, parallel: ParallelSettings) -> None:
    """Refuse a layout that cannot work before any rank is started."""
    job = Job(
        config=resolve(model),
        accelerator=accelerator("cpu"),
        gpus=parallel.ranks,
        sequence=train.sequence_length,
        batch=train.sequences_per_step,
    )
    refuse(job, parallel)
    if parallel.dispatch == "deepep":
        from yatsude.parallel import deepep  # noqa: PLC0415

        deepep.needed()
