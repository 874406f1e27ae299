"""From one command to the ranks of a job, and what a process is among them."""

import contextlib
import datetime
import logging
import os
import sys
from collections.abc import Iterator

import torch

from yatsude.errors import RecipeError
from yatsude.progress import hush, say
from yatsude.spec.parallel import ParallelSettings

__all__ = ["as_rank", "is_rank", "start"]

RANK = "RANK"
"""Set by torchrun, Slurm's wrapper and Kubernetes' operators alike."""
TIMEOUT = datetime.timedelta(minutes=10)
"""A rank that waits so long for another gives up, and with it the job."""


def is_rank() -> bool:
    """Whether something has started this process as one of several."""
    return RANK in os.environ


def start(settings: ParallelSettings) -> int:
    """Run this very command as many times as there are ranks, on this machine, by torchrun's agent; the exit code."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=settings.ranks,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=str(os.getpid()),
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "yatsude.cli", *sys.argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            say(f"rank {rank} was killed by signal {-failure.exitcode}, and the job with it; the same command goes on")
        return 1
    return 0


@contextlib.contextmanager
def as_rank(settings: ParallelSettings) -> Iterator[None]:
    """Take part in the job that has started this process; all ranks but the first are silent."""
    torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    try:
        if torch.distributed.get_rank():
            hush()
        torch.set_num_threads(1)
        _same_settings(settings)
        yield
    finally:
        torch.distributed.destroy_process_group()


def _same_settings(settings: ParallelSettings) -> None:
    """Every rank must have been started for the same job."""
    found: list[ParallelSettings] = [settings] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, settings)
    for rank, theirs in enumerate(found):
        if theirs != found[0]:
            raise RecipeError(f"rank {rank} has {theirs}, rank 0 {found[0]}; start all ranks with one recipe")
