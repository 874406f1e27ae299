"""Plans as plain text: tables, and the words beside them."""

import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from yatsude.plan.bill import Bill
from yatsude.plan.job import Job
from yatsude.plan.mesh import group
from yatsude.plan.rates import Rates
from yatsude.plan.search import Found, Plan
from yatsude.plan.traffic import Flow, seconds, traffic
from yatsude.spec.parallel import ParallelSettings

__all__ = ["axes", "flows", "memory", "metric", "plans", "refused", "steps", "table", "yen"]

GIB = 2**30


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
    """A table of text: the first column to the left, the rest to the right."""
    drawn = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", title_style="", pad_edge=False)
    for number, name in enumerate(columns):
        drawn.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    page = io.StringIO()
    Console(file=page, width=200, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines()).strip("\n")


def metric(value: float, unit: str) -> str:
    """A figure with a prefix of thousands.

    >>> metric(2.05e11, "FLOP/s"), metric(25e-6, "s"), metric(0.0, "s")
    ('205 GFLOP/s', '25 us', '0 s')
    """
    prefixes = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1.0: "", 1e-3: "m", 1e-6: "u", 1e-9: "n"}
    factor = next((step for step in prefixes if value >= step), 1.0)
    return f"{value / factor:.3g} {prefixes[factor]}{unit}"


def axes(layout: ParallelSettings) -> str:
    """A layout in one line: the axes that are more than 1, the schedule, and whether weights wait on the CPU."""
    names = ("pp", "replicas", "dp", "tp", "cp", "ep")
    found = " ".join(f"{name}={getattr(layout, name)}" for name in names if getattr(layout, name) > 1) or "dp=1"
    if layout.pp > 1:
        stages = f" x{layout.stages_per_rank}" if layout.schedule in ("interleaved", "zero-bubble") else ""
        found += f" {layout.schedule}{stages}"
    return found + (" offload" if layout.offload else "")


def plans(job: Job, found: Sequence[Plan], most: int = 5) -> str:
    """The best few."""
    columns = ("layout", "micro-batches", "recompute", "GiB", "s/step", "tokens/s/GPU", "MFU", "exchange", "bubble")
    rows = []
    for plan in found[:most]:
        sequences = job.batch // plan.layout.batch_ranks // plan.layout.micro_batches
        step = plan.step
        shares = [f"{100 * step.terms[name] / step.seconds:.0f} %" for name in ("exchange of rows", "bubble")]
        rows.append((
            axes(plan.layout), f"{plan.layout.micro_batches} x {sequences}", plan.layout.recompute,
            f"{plan.bytes / GIB:.1f}", f"{step.seconds:.3g}", f"{step.tokens_a_second:,.0f}",
            f"{100 * step.utilisation:.1f} %", *shares,
        ))  # fmt: skip
    return table(columns, rows)


def memory(job: Job, plan: Plan) -> str:
    """Bytes of the fullest rank."""
    have = job.accelerator.memory / GIB
    rows = [(name, f"{value / GIB:.2f}") for name, value in plan.memory.items() if value]
    rows.append(("sum", f"{plan.bytes / GIB:.2f}"))
    return table((f"pipeline rank {plan.rank}, which needs most", f"GiB of {have:.0f}"), rows)


def steps(plan: Plan) -> str:
    """Seconds of a step."""
    step = plan.step
    rows = [(name, f"{v:.3g}", f"{100 * v / step.seconds:.1f} %") for name, v in step.terms.items() if v]
    return table(("a step", "s", "share"), [*rows, ("sum", f"{step.seconds:.3g}", "")])


def flows(job: Job, plan: Plan) -> str:
    """Collectives of the fullest rank."""
    rows = [_flow(job, plan, flow, job.rates) for flow in traffic(job, plan.layout, plan.rank)]
    columns = (f"collectives of rank {plan.rank}, a step", "ranks", "calls", "GiB", "over link", "over network", "s")
    return table(columns, rows)


def refused(found: Found) -> list[str]:
    """Why the others failed: each reason with its count, and the equation of the one that came nearest."""
    ordered = sorted(found.refused.values(), key=lambda reason: -reason.count)
    return [
        f"{reason.count:,} of {found.tried:,} layouts: {reason.finding.key} = {reason.finding.value}:"
        f" {reason.finding.message} ({axes(reason.layout)})"
        for reason in ordered
    ]


def yen(whole: Bill) -> str:
    """Time, cost and energy in a line each."""
    days = whole.seconds / 86400
    time = f"{days:.1f} days" if days >= 1 else f"{whole.seconds / 3600:.2f} hours"
    lines = [
        f"time    {time} for {whole.steps:,} steps, {100 * whole.lost:.1f} % of it lost to failures",
        f"work    {whole.gpu_hours:,.0f} GPU hours",
        f"energy  {whole.megawatt_hours * 1000:,.{0 if whole.megawatt_hours > 0.01 else 2}f} kWh",
    ]
    if whole.yen is not None:
        lines.append(f"cost    {whole.yen:,.0f} yen")
    return "\n".join(lines)


def _flow(job: Job, plan: Plan, flow: Flow, rates: Rates) -> tuple[str, ...]:
    size = job.gpus if flow.axis == "all" else group(plan.layout, flow.axis, job.accelerator.node).size
    sent = (f"{value / GIB:,.4g}" for value in (flow.bytes, flow.link, flow.network))
    return f"{flow.axis} {flow.kind}", str(size), f"{flow.calls:,.0f}", *sent, f"{seconds(flow, rates):.3g}"
