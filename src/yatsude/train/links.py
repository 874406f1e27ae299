"""What processes reach that talk to each other: bytes a second, and seconds of the smallest collective."""

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed._functional_collectives import all_gather_single, wait_tensor

from yatsude.errors import MachineError
from yatsude.train.calibrate import wall

__all__ = ["between_processes", "links"]

NUMBERS = 2**19
"""Of float32 that each process gives to a gather: 2 MiB."""
ROUNDS = 5
LIMIT_S = 60


def links(device: str = "cpu") -> dict[str, float]:
    """Rates of all processes of this job, each of which makes this call.

    `link` is bytes/s that each sends in a gather, as the plan counts them; `latency` seconds of a sum of one number.
    By the clock on the wall: whoever waits uses no CPU. Medians of all processes, so that all have the same figures.
    """
    group = torch.distributed.group.WORLD
    assert group, "a process group is there"
    size = group.size()
    mine, one = torch.ones(NUMBERS, device=device), torch.ones(1, device=device)
    latency = _median(lambda: torch.distributed.all_reduce(one))
    gather = _median(lambda: wait_tensor(all_gather_single(mine, 0, group)))
    figures = torch.tensor([latency, gather], dtype=torch.float64, device=device)
    everyone = [torch.empty_like(figures) for _ in range(size)]
    torch.distributed.all_gather(everyone, figures)
    latency, gather = torch.stack(everyone).median(0).values.tolist()
    return {"link": 4 * NUMBERS * (size - 1) / max(gather - latency, gather / 2), "latency": latency}


def between_processes(ranks: int, device: str = "cpu") -> dict[str, float]:
    """Start some local processes, by gloo on a CPU and one a GPU by NCCL, and measure their links."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as place:
        given = (ranks, str(Path(place) / "store"), device, results)
        processes = [context.Process(target=_rank, args=(rank, *given), daemon=True) for rank in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(LIMIT_S)
        late = [process for process in processes if process.exitcode != 0]
        for process in late:
            process.kill()
    if late:
        raise MachineError(f"{len(late)} of {ranks} local processes did not get through to each other; try --ranks 1")
    found: dict[str, float] = results.get()
    return found


def _rank(
    rank: int, ranks: int, store: str, device: str, results: "multiprocessing.SimpleQueue[dict[str, float]]"
) -> None:
    torch.set_num_threads(1)
    place = "cpu" if device == "cpu" else f"cuda:{rank}"
    if place != "cpu":
        torch.cuda.set_device(place)
    backend = "gloo" if place == "cpu" else "nccl"
    torch.distributed.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=ranks)
    found = links(device=place)
    if rank == 0:
        results.put(found)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _median(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(ROUNDS):
        torch.distributed.barrier()
        start = wall()
        run()
        times.append(wall() - start)
    return statistics.median(times)
