"""One rank of a huge job in one process: the code that will train it, on tensors that have shapes and no numbers.

The other ranks are PyTorch's fake process group: nothing is sent, and every size is right. Every number that is read
from a tensor is 1; what else depends on numbers is stated in `stand_ins`.
"""

import contextlib
import dataclasses
import multiprocessing
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from yatsude.machine import cores
from yatsude.model.block import Mixture
from yatsude.model.native import library
from yatsude.parallel.expert import AllToAll
from yatsude.parallel.job import Job, local
from yatsude.parallel.mesh import Mesh
from yatsude.spec.config import ModelConfig
from yatsude.spec.parallel import ParallelSettings
from yatsude.train.balance import balance, penalties_of
from yatsude.train.settings import LoopSettings
from yatsude.train.sharded import ShardedOptimizer
from yatsude.train.stand_ins import EvenLocal, EvenRows, Undivided, fused, narrow
from yatsude.train.tracker import Counts, Tracker

__all__ = ["Dry", "Task", "dry_run", "stage_ranks", "steps"]

STEPS = 2
"""In the first one FSDP finds its order, and memory has a peak that no later one has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be trained, and how it is cut."""

    config: ModelConfig
    train: LoopSettings
    layout: ParallelSettings
    dtype: torch.dtype = torch.bfloat16
    imbalance: float = 1.0
    """Rows that come to a rank's experts over the mean."""
    kernels: bool = True
    """Whether attention keeps what a GPU's fused kernels keep; else what it keeps on a CPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dry:
    """What a rank of a job takes."""

    rank: int
    parameters: int
    """Numbers of weights that it holds, masters of its shards."""
    optimizer: int
    """Bytes of the optimizer's states."""
    step: Counts
    """Of the second step: `steady` are masters and states, and what stays gathered."""
    seconds: float = 0.0
    """That it took to find out."""
    resident: int = 0
    """Bytes of memory that it took at the most to find out."""


def dry_run(task: Task, ranks: Sequence[int]) -> Iterator[Dry]:
    """Play some ranks, each in a process of its own, as many at a time as there are cores; in their order."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores(), len(ranks)), spawn, max_tasks_per_child=1) as pool:
        yield from pool.map(play, [task] * len(ranks), ranks)


def stage_ranks(layout: ParallelSettings) -> list[int]:
    """The first rank of every rank of the pipeline."""
    return list(range(0, layout.ranks, layout.replicas * layout.shard_ranks))


def play(task: Task, rank: int) -> Dry:
    """Be one rank of the job, in this process alone."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=task.layout.ranks)
    try:
        found = steps(task, _Pretending(), FakeTensorMode(allow_non_fake_inputs=True))
    finally:
        torch.distributed.destroy_process_group()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return dataclasses.replace(found, rank=rank, seconds=time.perf_counter() - start, resident=most)


def steps(task: Task, tracker: Tracker, tensors: contextlib.AbstractContextManager[Any]) -> Dry:
    """Take steps as a rank of the job that runs, of balanced experts, and count what the last one takes."""
    train, config = task.train, task.config
    job = Job(
        config,
        Mesh(task.layout),
        sequences=train.sequences_per_step,
        length=train.sequence_length,
        dtype=task.dtype,
        ahead_weight=train.mtp_weight,
        penalties=penalties_of(train),
        float8=train.precision == "fp8",
    )
    with _standing_in(task, job, tracker), tensors, tracker:
        job.allocate()
        before = tracker.lap().steady
        optimizer = ShardedOptimizer(train.optimizer, job)
        states = tracker.lap().steady - before
        for _ in range(STEPS):
            tokens = torch.zeros(job.share, train.sequence_length, dtype=torch.int64)
            job.gradient(tokens, tokens, tokens, [(tokens, tokens)] * config.num_nextn_predict_layers)
            optimizer.step(1.0, job.norm())
            for stage in job.stages.values():
                balance([stage.model], train.balance_rate, job.sum_loads)
            del tokens
            counts = tracker.lap()
        parameters = sum(local(weight.detach()).numel() for _, weight in job.parameters())
    return Dry(rank=torch.distributed.get_rank(), parameters=parameters, optimizer=states, step=counts)


@contextlib.contextmanager
def _standing_in(task: Task, job: Job, tracker: Tracker) -> Iterator[None]:
    """Put what `stand_ins` has into the job and the model."""
    for module in (module for stage in job.stages.values() for module in stage.modules()):
        if isinstance(module, Mixture):
            far = module.dispatcher
            module.dispatcher = EvenRows(far.mesh, task.imbalance) if isinstance(far, AllToAll) else EvenLocal()
    with contextlib.ExitStack() as stack:
        stack.enter_context(library.aside())
        stack.enter_context(mock.patch("yatsude.parallel.stage.Documents", Undivided))
        stack.enter_context(mock.patch("yatsude.parallel.float8.scaled_grouped", narrow(tracker.count)))
        if task.kernels:
            for part in ("mla", "gqa"):
                stack.enter_context(mock.patch(f"yatsude.model.{part}.attend", fused(tracker.count)))
        yield


class _Pretending(Tracker):
    """Every number that is read from a tensor is 1."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):  # half of all that is asked
            return torch.device("meta") if args[0].fake_mode.in_kernel_invocation else args[0].fake_device
        return super().__torch_dispatch__(func, types, args, kwargs)

    def perform(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            number: Tensor = args[0]
            return 1.0 if number.is_floating_point() else 1
        return super().perform(func, args, kwargs)
