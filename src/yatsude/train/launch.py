"""From one command to the ranks of a job, and what a process is among them."""

import contextlib
import datetime
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from yatsude import __version__
from yatsude.errors import RecipeError
from yatsude.progress import hush, say
from yatsude.spec.parallel import ParallelSettings

__all__ = ["as_rank", "is_rank", "start"]

PLACE = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""What torchrun and Kubernetes' operators tell each process."""
TIMEOUT = datetime.timedelta(minutes=10)
"""A rank that waits so long for another gives up, and with it the job."""


def is_rank() -> bool:
    """Whether something has started this process as one of several."""
    return os.environ.keys() >= PLACE


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
def as_rank(sections: Mapping[str, Any]) -> Iterator[None]:
    """Take part in the job that has started this process; all ranks but the first are silent.

    `sections` are the settings of what is to be done, which must be those of every rank.
    """
    torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    try:
        if torch.distributed.get_rank():
            hush()
        torch.set_num_threads(1)
        _same({**sections, "version": __version__})
        yield
    finally:
        torch.distributed.destroy_process_group()


def _same(mine: dict[str, Any]) -> None:
    """Every rank must have been started for the same job, with the same program."""
    found = [mine] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    for rank, theirs in enumerate(found):
        for name, value in theirs.items():
            if value != found[0][name]:
                raise RecipeError(
                    f"rank {rank} has {name} = {value}, rank 0 {found[0][name]}; start all ranks with one recipe and"
                    " one version"
                )
