"""`yatsude plan serve`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from yatsude.cli import options
from yatsude.plan import screen
from yatsude.plan.serving import CHARACTERS, USABLE, Load, Serving, dense, offers, serve
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import Dtype, cache_bytes, count
from yatsude.spec.hardware import accelerator
from yatsude.spec.info import find

__all__ = ["command"]

WEIGHTS: dict[str, Dtype] = {"fp8": "float8", "bf16": "bfloat16"}


def command(
    preset: Annotated[str, typer.Option(metavar="PRESET|FOLDER", help="A preset, or a folder of a model.")] = "700b",
    gpu: Annotated[str, typer.Option(help="Which accelerator: h100, h200, b200, gb300 …")] = "h200",
    users: Annotated[int, typer.Option(min=1, help="Answers under way at once.")] = 64,
    context: Annotated[int, typer.Option(min=2, help="Tokens of prompt and answer together.")] = 8192,
    answer: Annotated[int, typer.Option(min=1, help="Tokens of the answer.")] = 1024,
    speed: Annotated[float, typer.Option(help="Tokens a second that a user waits for at worst.")] = 20.0,
    precision: Annotated[Literal["fp8", "bf16"], typer.Option(help="Of weights and products.")] = "bf16",
    characters: Annotated[float, typer.Option(help="Japanese characters a token.")] = CHARACTERS,
    yen_per_gpu_hour: Annotated[float | None, typer.Option(help="Price of one accelerator for an hour.")] = None,
    dense_sizes: Annotated[
        list[float] | None, typer.Option("--dense", help="Compare with a dense model of that many billions; repeat.")
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="TOML file of providers' prices, to compare with.")] = None,
) -> None:
    """Say what serving a model takes: accelerators, cache, speed, and yen a million Japanese characters."""
    options.refuse_unless_positive(yen_per_gpu_hour=yen_per_gpu_hour)
    load = Load(users=users, context=context, answer=answer, speed=speed, characters=characters)
    models = {preset: find(preset)} | {f"dense {size:g} B": dense(size) for size in dense_sizes or ()}
    fleets = {name: serve(config, accelerator(gpu), load, WEIGHTS[precision]) for name, config in models.items()}
    rows = [_row(name, models[name], fleet, load, yen_per_gpu_hour) for name, fleet in fleets.items()]
    columns = ("model", "parameters", "active", "GPUs", "weights GB", "cache GB", "cache/token", "tok/s/user", "tok/s",
               "characters/s", "yen/M characters")  # fmt: skip
    print(screen.table(columns, rows))
    if prices:
        print(_compared(prices, load, fleets[preset], yen_per_gpu_hour))
    print(
        f"\nassumed: {load.prompt} tokens of prompt and {load.answer} of answer, nothing of a prompt known before;"
        f" {characters:g} characters a token; all {users} users busy all the time; {USABLE:.0%} of the memory; weights"
        f" and products in {precision}, the cache in bf16; experts chosen evenly; no speculation"
    )


def _row(name: str, config: ModelConfig, fleet: Serving, load: Load, price: float | None) -> tuple[str, ...]:
    counts = count(config)
    instances = f"{fleet.instances} x {fleet.gpus}" if fleet.instances > 1 else str(fleet.gpus)
    return (
        name,
        f"{counts.total / 1e9:,.1f} B",
        f"{counts.active / 1e9:,.1f} B",
        instances,
        f"{fleet.instances * fleet.weights / 1e9:,.0f}",
        f"{fleet.instances * fleet.cache / 1e9:,.1f}",
        f"{cache_bytes(config) / 1e3:.1f} kB",
        f"{fleet.user_speed:.1f}",
        f"{fleet.tokens_a_second:,.0f}",
        f"{fleet.tokens_a_second * load.characters:,.0f}",
        "-" if price is None else f"{fleet.yen(price, load.characters):,.1f}",
    )


def _compared(prices: Path, load: Load, own: Serving, price: float | None) -> str:
    mine = None if price is None else own.yen(price, load.characters)
    rows = []
    for offer in offers(prices):
        theirs = offer.yen(load)
        change = "-" if mine is None else f"{100 * (mine / theirs - 1):+.0f} %"
        rows.append((offer.name, f"{offer.prompt:g} / {offer.answer:g}", f"{theirs:,.1f}", change))
    return "\n" + screen.table(("offer", "yen/M tokens in / out", "yen/M characters", "own against it"), rows)
