"""`yatsude plan lint`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.cli.plan_dry import shape
from yatsude.plan.faults import GPU_HOURS, Faults, pause
from yatsude.plan.job import Job
from yatsude.plan.lint import Training, lint
from yatsude.plan.rates import rates
from yatsude.plan.search import evaluate, shortfall
from yatsude.spec.hardware import accelerator

__all__ = ["command"]


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML file with settings.")],
    gpu: Annotated[str, typer.Option(help="What it runs on: h100, h200, b200, gb300, cpu …")] = "h100",
    gpu_hours: Annotated[float, typer.Option(min=1.0, help="Hours between failures of one accelerator.")] = GPU_HOURS,
    sets: options.Sets = None,
) -> None:
    """Look for settings that have cost others a run, and for what cannot work; exit code 1 where something cannot."""
    settings = options.Settings(recipe, sets)
    layout, train = settings.of("parallel"), settings.of("train")
    job = Job(
        config=shape(settings),
        accelerator=accelerator(gpu),
        gpus=layout.ranks,
        sequence=train.sequence_length,
        batch=train.sequences_per_step,
        optimizer="muon" if train.optimizer.muon else "adamw",
        states=train.optimizer.states,
        precision="fp8" if train.precision == "fp8" else "bf16",
    )
    rates(job.accelerator, job.precision)  # or refuse
    plan, faults = evaluate(job, layout), Faults(gpus=layout.ranks, gpu_hours=gpu_hours, save=pause(job, layout))
    training = Training(
        steps=train.steps,
        warmup=train.warmup,
        rate=train.optimizer.rate,
        epsilon=train.optimizer.epsilon,
        beta2=train.optimizer.beta2,
        clip=train.optimizer.clip,
        checkpoint_steps=train.checkpoint_steps,
        step_seconds=plan.step.seconds,
    )
    found = lint(job, training, layout, faults)
    short = None if any(one.severity == "error" for one in found) else shortfall(job, layout, plan.rank, plan.memory)
    found += [short] if short else []
    print("\n".join(map(str, found)) or "nothing found")
    if any(one.severity == "error" for one in found):
        raise typer.Exit(1)
    interval = train.checkpoint_steps * plan.step.seconds
    print(
        f"{layout.ranks:,} {gpu}: {plan.step.seconds:.3g} s a step, a checkpoint every {interval / 60:.3g} min loses"
        f" {100 * faults.loss(interval):.2g} % of the time; every {faults.best_interval / 60:.0f} min would lose"
        f" {100 * faults.loss(faults.best_interval):.2g} %"
    )
