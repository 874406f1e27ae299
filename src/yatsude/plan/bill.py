"""What a run takes: days, money and energy."""

import dataclasses

from yatsude.plan.faults import Faults
from yatsude.plan.job import Job
from yatsude.plan.search import Plan

__all__ = ["BUILDING", "LOAD", "MACHINE", "Bill", "bill", "gpus_for"]

MACHINE = 1.5
"""Of a whole machine over its accelerators' boards: hosts, network, fans. An assumption (DGX H100: 10.2 kW at most for
5.6 kW of boards)."""
LOAD = 0.85
"""Of a board's limit while it trains. An assumption."""
BUILDING = 1.2
"""Of the building over its machines (PUE). An assumption."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bill:
    """Of all tokens, failures included."""

    steps: int
    seconds: float
    gpu_hours: float
    lost: float
    """Share of the time that failures take, with checkpoints at the best interval."""
    megawatt_hours: float
    yen: float | None
    """None without a price."""


def bill(job: Job, plan: Plan, tokens: float, yen_per_gpu_hour: float | None, faults: Faults) -> Bill:
    """Time, cost and energy of training on `tokens` tokens."""
    steps = -(-int(tokens) // job.tokens)
    lost = min(faults.loss(faults.best_interval), 0.99)
    seconds = steps * plan.step.seconds / (1 - lost)
    hours = seconds / 3600 * job.gpus
    return Bill(
        steps=steps,
        seconds=seconds,
        gpu_hours=hours,
        lost=lost,
        megawatt_hours=hours * job.accelerator.watts * LOAD * MACHINE * BUILDING / 1e6,
        yen=None if yen_per_gpu_hour is None else hours * yen_per_gpu_hour,
    )


def gpus_for(days: float, whole: Bill) -> float:
    """GPUs that finish in that many days at the same speed each; more of them will each be a little slower."""
    return whole.gpu_hours / (24 * days)
