"""What failures cost a job, and how often to save: Young 1974 and Daly 2006."""

import dataclasses
import math

from yatsude.plan.job import WIDTH, Job
from yatsude.plan.memory import weights
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.pieces import held

__all__ = ["GPU_HOURS", "Faults", "pause"]

GPU_HOURS = 50_000.0
"""Hours between failures of one accelerator with its share of the machine: 419 unexpected stops of 16,384 GPUs in 54
days (Llama 3, arXiv 2407.21783, section 3.3.4) are 50,700."""


MEETING = 2.0
"""Seconds that ranks wait for each other around a checkpoint: an assumption."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faults:
    """Failures of a job, as a Poisson process."""

    gpus: int
    gpu_hours: float = GPU_HOURS
    """Mean time between failures of one."""
    save: float = 30.0
    """Seconds that training waits for a checkpoint; the rest is written beside it."""
    restart: float = 600.0
    """Seconds to notice, start again and load."""

    @property
    def seconds(self) -> float:
        """Mean time between failures of the whole job."""
        return self.gpu_hours * 3600 / self.gpus

    @property
    def best_interval(self) -> float:
        """Seconds between checkpoints that lose least: the square root of 2 · save · time between failures."""
        return math.sqrt(2 * self.save * self.seconds)

    def loss(self, interval: float) -> float:
        """Share of the time that is lost when saving every `interval` seconds: waiting, half an interval, restart.

        >>> round(Faults(gpus=2048).loss(3600), 3)
        0.036
        """
        return min(self.save / interval + (interval / 2 + self.restart) / self.seconds, 1.0)


def pause(job: Job, layout: ParallelSettings) -> float:
    """Seconds that training waits for a checkpoint: until the fullest rank has copied its state to the CPU's memory."""
    most = max(weights(job.config, layout, mine).sharded for mine in held(job.config, layout))
    return MEETING + most * (4 + 2 * WIDTH[job.states]) / job.rates.host
