"""`yatsude plan dry-run`: ranks of a large job, one after the other on this machine, beside the closed form."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yatsude.cli import options
from yatsude.errors import RecipeError
from yatsude.plan.job import Job
from yatsude.plan.memory import rank_memory
from yatsude.plan.rates import rates
from yatsude.plan.refuse import refuse
from yatsude.plan.screen import axes, table
from yatsude.plan.step import flops
from yatsude.plan.traffic import traffic
from yatsude.progress import bar, say
from yatsude.spec.config import ModelConfig
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.settings import resolve
from yatsude.train.settings import LoopSettings

if TYPE_CHECKING:  # a plan alone loads no torch
    from yatsude.train.dryrun import Dry

__all__ = ["command", "shape", "show"]

GIB = 2**30
KINDS = ("all-to-all", "all-gather", "reduce-scatter", "all-reduce", "send")
BESIDE_TENSORS = ("framework", "fragmented")
"""Of the closed form: what no tensor holds."""


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML file with [model], [train] and [parallel].")],
    gpu: Annotated[str, typer.Option(help="What it will run on: h100, h200, b200, gb300 …")] = "h100",
    rank: Annotated[list[int] | None, typer.Option(help="A rank to play; by default one of each stage.")] = None,
    imbalance: Annotated[float, typer.Option(help="Rows of a rank's experts over the mean.")] = 1.0,
    sets: options.Sets = None,
) -> None:
    """Play ranks of a job with the code that will train it, on tensors without numbers: memory, FLOPs, exchanges."""
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
        imbalance=imbalance,
        precision="fp8" if train.precision == "fp8" else "bf16",
    )
    show(job, layout, train, rank or ())


def shape(settings: options.Settings) -> ModelConfig:
    """The model of a recipe, as it would be trained; its vocabulary is the tokenizer's, if that is set."""
    told = settings.of("tokenizer").vocab_size if "vocab_size" in settings.given("tokenizer") else None
    config = resolve(settings.of("model"), told)
    where = "of [tokenizer]" if told else "of the preset; a training has its tokenizer's: set tokenizer.vocab_size"
    say(f"a vocabulary of {config.vocab_size:,}, {where}")
    return config if settings.of("train").mtp_weight else dataclasses.replace(config, num_nextn_predict_layers=0)


def show(job: Job, layout: ParallelSettings, train: LoopSettings, ranks: Sequence[int] = ()) -> None:
    """Play ranks, print what each takes beside the closed form, and how far that was off."""
    from yatsude.train.dryrun import Task, dry_run, stage_ranks  # noqa: PLC0415

    refuse(job, layout)
    rates(job.accelerator, job.precision)  # or refuse
    if layout.ep > 1 and job.imbalance > layout.ep:
        raise RecipeError(
            f"--imbalance {job.imbalance:g}: expected at most parallel.ep = {layout.ep}, all rows on a rank"
        )
    if outside := [rank for rank in ranks if not 0 <= rank < layout.ranks]:
        raise RecipeError(f"--rank {outside[0]}: the job has ranks 0 to {layout.ranks - 1}")
    task = Task(config=job.config, train=train, layout=layout, imbalance=job.imbalance)
    ranks = ranks or stage_ranks(layout)
    each = layout.replicas * layout.shard_ranks
    rows, off = [], dict[str, list[float]]()
    with bar("dry run", len(ranks), "ranks") as progress:
        for dry in dry_run(task, ranks):
            pairs = _pairs(job, layout, dry.rank // each, dry)
            rows.append((f"{dry.rank} (pp {dry.rank // each})", *(_pair(*pair) for pair in pairs.values())))
            for name, (found, stated) in pairs.items():
                off.setdefault(name, []).extend([stated / found - 1] if found else [])
            progress.advance()
    columns = (f"rank of {layout.ranks:,}", *pairs)
    print(f"\ndry run of {axes(layout)}, the second step; after each slash the closed form")
    print(table(columns, rows))
    print(f"memory is what tensors hold; {' and '.join(BESIDE_TENSORS)} memory come on top in the plan")
    print("closed form, off by: " + ", ".join(f"{name} {_range(values)}" for name, values in off.items() if values))


def _pairs(job: Job, layout: ParallelSettings, stage: int, dry: "Dry") -> dict[str, tuple[float, float]]:
    """What was counted, and what the closed form says, by name."""
    memory = rank_memory(job, layout, stage)
    stated = sum(value for name, value in memory.items() if name not in BESIDE_TENSORS)
    flows = traffic(job, layout, stage)
    found = {
        "M parameters": (dry.parameters / 1e6, memory["weights"] / 4e6),
        "peak GiB": (dry.step.peak / GIB, stated / GIB),
        "TFLOP": (dry.step.flops / 1e12, flops(job, layout, stage) / 1e12),
    }
    for kind in KINDS:
        moved = sum(flow.bytes for flow in flows if flow.kind == kind)
        found[f"{kind} GiB"] = (dry.step.exchanged.get(kind, (0, 0))[1] / GIB, moved / GIB)
    return found


def _pair(found: float, stated: float) -> str:
    return f"{found:,.4g} / {stated:,.4g}" if found or stated else ""


def _range(values: Sequence[float]) -> str:
    low, high = 100 * min(values), 100 * max(values)
    return f"{low:+.1f} %" if high - low < 0.05 else f"{low:+.1f} to {high:+.1f} %"
