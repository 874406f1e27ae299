"""Ranks that are slower than the others: each waits for the slowest, so that one bad machine costs as much as all.

Every so many steps each rank times a small product that is the same everywhere, and looks how long it was busy with its
own part of the steps since. The product tells a slow processor, a GPU where ranks compute on GPUs; the work of the CPU
also a rank that has more to do than others.
"""

import dataclasses
import socket
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Look", "Slowness", "look", "slower"]

STEPS = 50
"""Between two looks."""
LIMIT = 1.3
"""Times the median; less is the noise of a machine that does other things too."""
SIZES = {"cpu": 256, "cuda": 4096}
"""Of the product's matrices: a millisecond or so."""
TRIES = 5


@dataclasses.dataclass(frozen=True)
class Look:
    """What a rank has measured of itself, in seconds."""

    host: str
    stage: int
    """Ranks with the same layers should have as much to do as each other."""
    product: float
    busy: float
    """A step's own work, without waiting."""


class Slowness:
    """Measures this rank, and remembers who was slow before: a second time in a row is no accident."""

    def __init__(self, stage: int, device: str) -> None:
        self._stage, self._steps, self._busy = stage, 0, 0.0
        self._before: frozenset[int] = frozenset()
        self._told: set[int] = set()
        numbers = torch.randn(SIZES[device], SIZES[device], generator=torch.Generator().manual_seed(0))
        self._factor = numbers.to(device, torch.float32 if device == "cpu" else torch.bfloat16)

    def step(self, busy: float) -> dict[int, dict[str, Any]]:
        """Count a step of `busy` seconds; now and then the ranks that are newly found to be slow, by rank.

        Every rank of the job has to call this in the same steps.
        """
        self._steps += 1
        self._busy += busy
        if self._steps < STEPS:
            return {}
        mine = look(self._stage, self._factor, self._busy / self._steps)
        self._steps, self._busy = 0, 0.0
        found = [mine] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found, mine)
        slow = slower(found)
        new = {
            rank: {"host": found[rank].host, **times}
            for rank, times in slow.items()
            if rank in self._before and rank not in self._told
        }
        self._before = frozenset(slow)
        self._told |= new.keys()
        return new


def look(stage: int, factor: Tensor, busy: float) -> Look:
    """Time the product on this rank: the best of some tries, each of what the wall's clock says."""
    times = []
    for _ in range(TRIES):
        _finish(factor)
        start = time.perf_counter()
        factor @ factor
        _finish(factor)
        times.append(time.perf_counter() - start)
    return Look(socket.gethostname(), stage, min(times), busy)


def _finish(factor: Tensor) -> None:
    """Wait for what was given to a GPU."""
    if factor.is_cuda:
        torch.cuda.synchronize()


def slower(looks: Sequence[Look]) -> dict[int, dict[str, float]]:
    """Ranks far over the median of all (`product`) or of those with the same layers (`busy`), each as times of it.

    >>> slower([Look("a", 0, 1.0, 1.0), Look("b", 0, 1.0, 1.0), Look("c", 0, 2.0, 1.0)])
    {2: {'product': 2.0, 'busy': 1.0}}
    """
    product = statistics.median_low([one.product for one in looks])
    found = {}
    for rank, one in enumerate(looks):
        peers = statistics.median_low([other.busy for other in looks if other.stage == one.stage])
        times = {"product": round(one.product / product, 2), "busy": round(one.busy / max(peers, 1e-9), 2)}
        if max(times.values()) > LIMIT:
            found[rank] = times
    return found
