"""`yatsude plan`: how to train a model on many accelerators, before any is rented."""

from pathlib import Path
from typing import Annotated, Any

import typer

from yatsude import recipe
from yatsude.cli import options, plan_calibrate, plan_dry, plan_lint, plan_serve
from yatsude.errors import RecipeError
from yatsude.plan import bill, rates, screen
from yatsude.plan.faults import GPU_HOURS, Faults, pause
from yatsude.plan.job import Dispatch, Job, Number, Optimizer, Precision
from yatsude.plan.lint import usual_rate
from yatsude.plan.search import Found, Plan, search
from yatsude.progress import say
from yatsude.spec.counts import count
from yatsude.spec.hardware import accelerator
from yatsude.spec.info import find
from yatsude.spec.presets import PRESETS
from yatsude.spec.settings import ModelSettings
from yatsude.train.settings import LoopSettings, OptimizerSettings

__all__ = ["BELOW", "command"]

BELOW = {
    "serve": plan_serve.command,
    "lint": plan_lint.command,
    "dry-run": plan_dry.command,
    "calibrate": plan_calibrate.command,
}
"""`yatsude plan serve` and so on."""
STEP_TOKENS = 2**24
"""Of a step, where no batch is given: as DeepSeek-V3 began with, about."""
WARMUP = 2000
"""Steps, in the recipe; a tenth of a shorter run. The learning rate is that of runs of as many FLOPs."""
FEWEST_STATES = 10
"""Of a run, in the recipe, however rarely a machine fails."""
UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def command(
    context: typer.Context,
    preset: Annotated[str, typer.Option(metavar="PRESET|FOLDER", help="A preset, or a folder of a model.")] = "700b",
    gpus: Annotated[int, typer.Option(min=1, help="Accelerators.")] = 2048,
    gpu: Annotated[str, typer.Option(help="Which: h100, h200, b200, gb300 …")] = "h100",
    tokens: Annotated[str, typer.Option(help="To train on: 1T, 300B, 5e9.")] = "1T",
    days: Annotated[float | None, typer.Option(help="Days there are: says whether they suffice.")] = None,
    yen_per_gpu_hour: Annotated[float | None, typer.Option(help="Price of one accelerator for an hour.")] = None,
    sequence: Annotated[int, typer.Option(min=2, help="Tokens of a sequence.")] = 4096,
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences of a step; by default about 16 M tokens.")] = None,
    precision: Annotated[Precision, typer.Option(help="Of the large products.")] = "bf16",
    optimizer: Annotated[Optimizer, typer.Option(help="Which optimizer.")] = "adamw",
    states: Annotated[Number, typer.Option(help="Precision of the optimizer's states.")] = "fp32",
    imbalance: Annotated[float, typer.Option(help="Rows of the fullest rank's experts over the mean.")] = 1.1,
    dispatch: Annotated[Dispatch, typer.Option(help="How rows travel to experts.")] = "all-to-all",
    overlap: Annotated[bool, typer.Option("--overlap", help="Rows travel behind another micro-batch.")] = False,
    calibration: Annotated[Path | None, typer.Option(help="JSON file of measured rates, of 'calibrate'.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the best layout as a recipe.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Play a rank of each stage with the real code.")] = False,
) -> None:
    """Search all layouts of a training job: memory, time, cost, communication, and why the others fail."""
    if context.invoked_subcommand:
        return
    options.refuse_unless_positive(days=days, yen_per_gpu_hour=yen_per_gpu_hour)
    config, machine = find(preset), accelerator(gpu)
    stated = rates.rates(machine, precision)
    job = Job(
        config=config,
        accelerator=machine,
        gpus=gpus,
        sequence=sequence,
        batch=batch or max(round(STEP_TOKENS / sequence / gpus), 1) * gpus,
        precision=precision,
        optimizer=optimizer,
        states=states,
        imbalance=imbalance,
        dispatch=dispatch,
        overlap=overlap,
        measured=rates.calibrated(stated, calibration) if calibration else None,
    )
    whole = _number(tokens)
    found = search(job)
    say(f"{preset} on {gpus:,} {machine.name}: {found.tried:,} layouts, {job.batch:,} sequences of {sequence:,} a step")
    if not found.plans:
        reasons = screen.refused(found)
        say("\n".join(reasons))
        raise RecipeError(f"{preset} cannot be trained on {gpus} {machine.name}: {reasons[0]}")
    best = found.plans[0]
    _print(job, found, best)
    faults = Faults(gpus=gpus, save=pause(job, best.layout))
    told = bill.bill(job, best, whole, yen_per_gpu_hour, faults)
    print(screen.yen(told))
    print(_saving(faults))
    if days:
        word = "enough" if told.seconds <= days * 86400 else "too few"
        print(f"{days:g} days are {word}: they need about {bill.gpus_for(days, told):,.0f} {machine.name}")
    print(_assumed(job))
    if out:
        _write(out, job, best, preset, told.steps, faults)
    if dry_run:
        update = OptimizerSettings(muon=job.optimizer == "muon", states=job.states)
        train = LoopSettings(
            sequences_per_step=job.batch,
            sequence_length=job.sequence,
            optimizer=update,
            precision="fp8" if job.precision == "fp8" else "auto",
        )
        plan_dry.show(job, best.layout, train)


def _print(job: Job, found: Found, best: Plan) -> None:
    blocks = [screen.plans(job, found.plans), screen.memory(job, best), screen.steps(best)]
    if job.gpus > 1:
        blocks.append(screen.flows(job, best))
    if found.refused:
        blocks.append("why others failed\n" + "\n".join(f"  {reason}" for reason in screen.refused(found)))
    print("\n\n".join(blocks) + "\n")


def _saving(faults: Faults) -> str:
    best = faults.best_interval
    return (
        f"faults  one every {faults.seconds / 3600:.3g} h ({GPU_HOURS:,.0f} GPU hours each); a checkpoint every"
        f" {best / 60:.0f} min loses least, {100 * faults.loss(best):.1f} %"
    )


def _assumed(job: Job) -> str:
    source = "measured" if job.measured else "stated shares of the data sheet"
    reached = job.rates
    return (
        f"assumed ({source}): products {reached.matrix / 1e12:.4g} TFLOP/s, experts {reached.grouped / 1e12:.4g},"
        f" attention {reached.attention / 1e12:.4g}; memory {reached.bandwidth / 1e9:.4g} GB/s, link"
        f" {reached.link / 1e9:.3g}, network {reached.network / 1e9:.3g}; fullest rank {job.imbalance:g} of the mean;"
        f" rows {job.dispatch}{', hidden' if job.overlap else ''}; boards at {bill.LOAD:.0%} of"
        f" {job.accelerator.watts:g} W, x {bill.MACHINE} for machines, x {bill.BUILDING} for the building"
    )


def _write(out: Path, job: Job, best: Plan, preset: str, steps: int, faults: Faults) -> None:
    if preset not in PRESETS:
        raise RecipeError(f"--out {out}: a recipe names a preset, and {preset} is a folder; give --preset one of them")
    flops = 6.0 * count(job.config).active * steps * job.tokens
    saved = faults.best_interval / best.step.seconds
    train: dict[str, Any] = {
        "steps": steps,
        "sequence_length": job.sequence,
        "sequences_per_step": job.batch,
        "warmup": float(f"{min(WARMUP / steps, 0.1):.2g}"),
        "checkpoint_steps": max(min(round(saved), steps // FEWEST_STATES), 1),
        "optimizer": {
            "muon": job.optimizer == "muon",
            "rate": float(f"{usual_rate(flops):.2g}"),
            "states": job.states,
        },
    }
    sections = {"model": ModelSettings(preset=preset), "train": train, "parallel": best.layout}
    comment = f"# {preset} on {job.gpus} {job.accelerator.name}: about {best.step.tokens_a_second:,.0f} tokens/s each"
    recipe.write(out, sections, comment)
    say(f"the recipe is {out}; check it with: yatsude plan lint {out} --gpu {job.accelerator.name}")


def _number(word: str) -> float:
    """Read 1T, 300B or 5e9."""
    text = word.strip().upper()
    unit = UNITS.get(text[-1:], 1.0)
    try:
        number = float(text[:-1] if text[-1:] in UNITS else text) * unit
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise RecipeError(f"--tokens {word}: expected a number such as 1T, 300B or 5e9")
    return number
