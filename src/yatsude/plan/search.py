"""All layouts of a job: which cannot work, which do not fit, and the fastest of the rest."""

import dataclasses
import math
from collections.abc import Iterator, Mapping

from yatsude.plan.finding import Finding
from yatsude.plan.job import Job
from yatsude.plan.memory import floor, peak, waiting
from yatsude.plan.refuse import refuse_mesh, refuse_pipeline
from yatsude.plan.step import Step, step
from yatsude.spec.parallel import ParallelSettings, Recompute, Schedule

__all__ = ["Found", "Plan", "Refused", "evaluate", "search", "shortfall"]

SCHEDULES: tuple[tuple[Schedule, int], ...] = (
    ("1f1b", 1), ("interleaved", 2), ("interleaved", 4), ("zero-bubble", 2), ("zbv", 2), ("dualpipev", 2),
)  # fmt: skip
"""Each with stages a rank."""
MOST_TENSOR, MOST_CONTEXT, MOST_STAGES = 16, 64, 64
LONG = 8192
"""Tokens of a sequence from which on context parallelism is tried."""
SIZES = (1, 2, 4, 8)
"""Sequences of a micro-batch."""
SAVINGS: tuple[tuple[Recompute, bool], ...] = (("none", False), ("selective", False), ("full", False), ("full", True))
"""Recomputation and offloading, the cheaper first."""
NEAR = 1.01
"""Layouts this close in time count as equal, and the simpler one wins."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A layout that works, with what it needs and takes."""

    layout: ParallelSettings
    step: Step
    rank: int
    """The pipeline rank that needs most memory."""
    memory: dict[str, float]
    """Its bytes by name."""

    @property
    def bytes(self) -> float:
        """All of them."""
        return sum(self.memory.values())


@dataclasses.dataclass
class Refused:
    """A reason against layouts: how many it met, and the one that came nearest."""

    count: int
    layout: ParallelSettings
    finding: Finding
    lacking: float = 0.0
    """Bytes, where memory is the reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found."""

    plans: list[Plan]
    """The fastest of each way of cutting, fastest first."""
    refused: dict[str, Refused]
    """By key of the setting that failed."""
    tried: int


def search(job: Job) -> Found:
    """Try every layout; of each, the cheapest saving of memory that makes it fit."""
    best: dict[tuple[int, ...], Plan] = {}
    refused: dict[str, Refused] = {}
    tried = 0
    for mesh in _meshes(job):
        found = next(refuse_mesh(job, mesh), None)
        if found is not None:
            tried += 1
            _note(refused, mesh, found)
            continue
        for layout in _pipelines(job, mesh):
            tried += 1
            plan = _tried(job, layout, refused)
            key = (mesh.pp, mesh.tp, mesh.cp)
            if plan and (key not in best or _order(plan) < _order(best[key])):
                best[key] = plan
    return Found(plans=sorted(best.values(), key=_order), refused=refused, tried=tried)


def evaluate(job: Job, layout: ParallelSettings) -> Plan:
    """Time and memory of one layout, whether it fits or not."""
    rank, memory = peak(job, layout)
    return Plan(layout=layout, step=step(job, layout), rank=rank, memory=memory)


def shortfall(job: Job, layout: ParallelSettings, rank: int, memory: Mapping[str, float]) -> Finding | None:
    """What a layout lacks whose fullest rank needs `memory`, by the largest terms; none where it fits."""
    have, needed = job.accelerator.memory, sum(memory.values())
    over = waiting(job, layout) - job.accelerator.host_memory
    if needed <= have and over > 0:
        return Finding(
            severity="error",
            key="parallel.offload",
            value=layout.offload,
            message=f"a rank's weights, gradients and optimizer are {over / 2**30:.0f} GiB more than the"
            f" {job.accelerator.host_memory / 2**30:.0f} that its CPU is taken to have; cut further (dp, pp)",
        )
    if needed <= have:
        return None
    terms = sorted(memory.items(), key=lambda item: -item[1])[:4]
    told = " + ".join(f"{name} {value / 2**30:.1f}" for name, value in terms)
    return Finding(
        severity="error",
        key="memory",
        value=f"{needed / 2**30:.1f} GiB",
        message=f"pipeline rank {rank} needs {told} + others, and {job.accelerator.name} has {have / 2**30:.0f};"
        " cut further (pp, ep, dp), recompute, or offload",
    )


def _tried(job: Job, layout: ParallelSettings, refused: dict[str, Refused]) -> Plan | None:
    found = next(refuse_pipeline(job, layout), None)
    if found is not None:
        _note(refused, layout, found)
        return None
    hopeless = floor(job, layout) > job.accelerator.memory
    for recompute, offload in SAVINGS[-1:] if hopeless else SAVINGS:
        cut = dataclasses.replace(layout, recompute=recompute, offload=offload)
        rank, memory = peak(job, cut)
        fits = sum(memory.values()) <= job.accelerator.memory
        if fits and waiting(job, cut) <= job.accelerator.host_memory:
            return Plan(layout=cut, step=step(job, cut), rank=rank, memory=memory)
    lacking = sum(memory.values()) - job.accelerator.memory
    finding = shortfall(job, cut, rank, memory)
    assert finding, "more than there is"
    _note(refused, cut, finding, lacking)
    return None


def _note(refused: dict[str, Refused], layout: ParallelSettings, finding: Finding, lacking: float = 0.0) -> None:
    """Count a reason, and keep the layout that came nearest."""
    known = refused.get(finding.key)
    count = known.count + 1 if known else 1
    if known is None or lacking < known.lacking:
        refused[finding.key] = Refused(count, layout, finding, lacking)
    else:
        known.count = count


def _order(plan: Plan) -> tuple[float, int, float]:
    layout = plan.layout
    axes = sum(size > 1 for size in (layout.pp, layout.tp, layout.cp, layout.replicas, layout.stages_per_rank))
    seconds = plan.step.seconds
    return round(math.log(seconds) / math.log(NEAR)), axes, seconds


def _meshes(job: Job) -> Iterator[ParallelSettings]:
    """Ways to cut the GPUs, the schedule aside."""
    node = job.accelerator.node
    for pp in _divisors(job.gpus, MOST_STAGES):
        for tp in _divisors(job.gpus // pp, min(node, MOST_TENSOR)):
            for cp in _divisors(job.gpus // pp // tp, MOST_CONTEXT if job.sequence > LONG else 1):
                ranks = job.gpus // pp // tp // cp
                for replicas in _divisors(ranks, max(ranks * tp * cp // node, 1)):
                    mesh = ParallelSettings(pp=pp, tp=tp, cp=cp, replicas=replicas, dp=ranks // replicas)
                    yield from _dealt(job, mesh)


def _dealt(job: Job, mesh: ParallelSettings) -> Iterator[ParallelSettings]:
    """Ways to deal the experts over the ranks of one stage."""
    most = job.config.n_routed_experts if job.config.has_experts else 1
    for ep in _divisors(mesh.shard_ranks, most):
        yield dataclasses.replace(mesh, ep=ep)


def _pipelines(job: Job, mesh: ParallelSettings) -> Iterator[ParallelSettings]:
    each = job.batch // mesh.batch_ranks
    for size in SIZES:
        if each % size:
            continue
        for schedule, stages in SCHEDULES if mesh.pp > 1 else SCHEDULES[:1]:
            yield dataclasses.replace(mesh, schedule=schedule, stages_per_rank=stages, micro_batches=each // size)


def _divisors(number: int, most: int) -> list[int]:
    return [divisor for divisor in range(1, min(number, most) + 1) if number % divisor == 0]
