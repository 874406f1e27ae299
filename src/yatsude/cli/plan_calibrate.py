"""`yatsude plan calibrate`."""

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from yatsude.files import new_file
from yatsude.plan import screen
from yatsude.plan.rates import Rates, rates
from yatsude.progress import say
from yatsude.spec.hardware import Accelerator, accelerator, named
from yatsude.spec.info import find

__all__ = ["command"]

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
PEAKS = {
    "matrix": "bf16",
    "plain": "bf16",
    "grouped": "bf16",
    "attention": "bf16",
    "bandwidth": "bandwidth",
    "link": "link",
}
"""Rate -> the figure of a data sheet that it is a share of."""


def command(
    preset: Annotated[
        str, typer.Option(metavar="PRESET|FOLDER", help="Whose shapes are measured: a preset, or a folder of a model.")
    ] = "mini",
    precision: Annotated[Literal["bf16", "fp32"], typer.Option(help="Of the products.")] = "bf16",
    ranks: Annotated[int, typer.Option(min=1, help="Local processes between which the link is measured.")] = 2,
    gpu: Annotated[
        str | None, typer.Option(help="Data sheet to compare with; by default that of the GPU found here.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the rates, for 'yatsude plan --calibration'.")] = None,
) -> None:
    """Measure what this machine reaches: products, experts, attention, memory, and the link between processes."""
    config, wished = find(preset), accelerator(gpu) if gpu else None
    import torch  # noqa: PLC0415

    from yatsude.machine import processor  # noqa: PLC0415
    from yatsude.train.calibrate import calibrate, wall  # noqa: PLC0415
    from yatsude.train.links import between_processes  # noqa: PLC0415

    torch.set_num_threads(1)
    dtype = getattr(torch, DTYPES[precision])
    cuda = torch.cuda.is_available()
    machine = torch.cuda.get_device_name() if cuda else processor()
    sheet = wished or named(machine)
    if cuda:
        found = calibrate(config, dtype, clock=wall, device="cuda")
        ranks = min(ranks, torch.cuda.device_count())
    else:
        found = calibrate(config, dtype)
    if ranks > 1:
        found |= between_processes(ranks, "cuda" if cuda else "cpu")
    print(_table(found, sheet))
    how = "the GPU, by the clock" if cuda else "one thread, CPU time"
    between = f"; link and latency between {ranks} processes, by the clock" if ranks > 1 else ""
    print(f"\n{machine}: {how}{between}; shapes of {preset}, {precision}; medians")
    if out:
        page = {
            "machine": machine,
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "preset": preset,
            "precision": precision,
            "processes": ranks,
        }
        with new_file(out) as draft:
            draft.write_text(json.dumps(page | found, indent=1) + "\n", encoding="utf-8")
        say(f"the rates are in {out}; use them with: yatsude plan --gpu {sheet.name} --calibration {out}")


def _table(found: dict[str, float], sheet: Accelerator) -> str:
    """Each rate beside the data sheet's peak, and beside the share of it that a plan takes without a calibration."""
    stated = dataclasses.asdict(rates(sheet))
    rows = []
    for name in (field.name for field in dataclasses.fields(Rates)):
        if name not in found:
            continue
        peak = getattr(sheet, PEAKS[name]) if name in PEAKS else 0.0
        unit = "s" if name in ("latency", "launch") else "B/s" if name in ("bandwidth", "link") else "FLOP/s"
        shares = (found[name] / peak, stated[name] / peak) if peak else ()
        of = [f"{100 * share:.0f} %" for share in shares] or ["-", screen.metric(stated[name], unit)]
        rows.append((name, screen.metric(found[name], unit), screen.metric(peak, unit) if peak else "-", *of))
    title = "no data sheet: a usual core" if sheet.name == "cpu" else f"data sheet of {sheet.name}"
    return screen.table(("rate", "measured", title, "share", "taken without it"), rows)
