"""Clocks of machines that do not agree make their logs tell things in the wrong order."""

import socket
import time
from collections.abc import Sequence

import torch

__all__ = ["late", "skewed"]

LIMIT_S = 1.0
ROUNDS = 3


def late() -> list[str]:
    """What is to be said of the clocks of all ranks' machines; every rank of the job has to call this.

    All look at their clocks when they leave a barrier, which they do within milliseconds; the best of three looks
    counts, so that a rank that was kept waiting by its machine is not taken for one whose clock is wrong.
    """
    looks = []
    for _ in range(ROUNDS):
        torch.distributed.barrier()
        looks.append(time.time())
    mine = (socket.gethostname(), looks)
    found = [mine] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    return skewed(found)


def skewed(found: Sequence[tuple[str, Sequence[float]]]) -> list[str]:
    """A line for each host whose clock is more than a second from rank 0's: hosts and looks at the clock, in seconds.

    >>> skewed([("a", [10.0]), ("b", [14.0])])
    ['the clock of b is 4.0 s ahead of that of a: times in their logs mislead; set them by NTP']
    """
    first_host, first = found[0]
    told: dict[str, str] = {}
    for host, looks in found[1:]:
        off = min((mine - theirs for mine, theirs in zip(looks, first, strict=True)), key=abs)
        if abs(off) > LIMIT_S and host not in told:
            side = "ahead of" if off > 0 else "behind"
            told[host] = (
                f"the clock of {host} is {abs(off):.1f} s {side} that of {first_host}: times in their logs mislead;"
                " set them by NTP"
            )
    return list(told.values())
