"""How a job is started and kept up, as the `[launch]` section of a recipe says it. No torch.

Nothing here changes a result: a run may go on with other settings of these.
"""

import dataclasses
import math

from yatsude.errors import RecipeError
from yatsude.spec.parallel import ParallelSettings

__all__ = ["HUNG", "LOST", "STOPPED", "LaunchSettings", "fitting"]

STOPPED = 130
"""Exit code of a job that was asked to stop and has written a state: the same command goes on."""
HUNG = 124
"""Exit code of a rank that ends because none gets on."""
LOST = 121
"""Exit code of a rank that ends because another did, or of an agent that finds no other: a new start may mend it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """Where the ranks run, and what happens when one is lost."""

    nodes: int = 1
    """Machines, each with as many of the ranks. The command is run once on each."""
    min_nodes: int = 0
    """With fewer machines than `nodes`, but so many, the job goes on with fewer ranks; 0: with all only."""
    rendezvous: str = ""
    """HOST:PORT of one of the machines, where all find each other; not needed for one machine."""
    restarts: int = 3
    """How often in a row the ranks are started again without getting a step further than before."""
    hang_s: float = 0.0
    """Seconds without progress after which a job counts as hung; 0: ten times the usual step, at least 300."""

    def __post_init__(self) -> None:
        """Refuse numbers that no job has."""
        for name, least in {"nodes": 1, "min_nodes": 0, "restarts": 0}.items():
            if getattr(self, name) < least:
                raise RecipeError(f"launch.{name} = {getattr(self, name)}: expected at least {least}")
        if self.min_nodes > self.nodes:
            raise RecipeError(f"launch.min_nodes = {self.min_nodes}: expected at most launch.nodes = {self.nodes}")
        if not 0 <= self.hang_s < math.inf:
            raise RecipeError(f"launch.hang_s = {self.hang_s:g}: expected 0 (ten times the usual step) or seconds")
        host, _, port = self.rendezvous.rpartition(":")
        if self.rendezvous and not (host and port.isdecimal() and int(port) < 65536):
            raise RecipeError(f"launch.rendezvous = '{self.rendezvous}': expected HOST:PORT, such as node0:29500")
        if self.nodes > 1 and not self.rendezvous:
            raise RecipeError(
                f"launch.nodes = {self.nodes}: they find each other at launch.rendezvous; set it to HOST:PORT of the"
                " first, such as node0:29500"
            )

    def ranks_per_node(self, parallel: ParallelSettings) -> int:
        """Processes on each machine."""
        if parallel.ranks % self.nodes:
            raise RecipeError(
                f"launch.nodes = {self.nodes}: expected a divisor of the {parallel.ranks} ranks of [parallel] (pp x"
                " replicas x dp x cp x tp)"
            )
        return parallel.ranks // self.nodes


def fitting(parallel: ParallelSettings, ranks: int, sequences: int) -> ParallelSettings:
    """Cut a job so that it runs on at most `ranks` ranks; each step still has its `sequences`.

    Replicas are given up first, which costs no rank any memory, then shards of `dp`. All else stays. Micro-batches
    become more, never larger, so that activations take no more memory than before.

    >>> fitting(ParallelSettings(replicas=2, dp=4), 6, 32).dp
    4
    """
    if ranks >= parallel.ranks:
        return parallel
    for dp in range(parallel.dp, 0, -1):
        for replicas in range(parallel.replicas, 0, -1):
            if found := _smaller(parallel, ranks, sequences, replicas, dp):
                return found
    fixed = parallel.pp * parallel.cp * parallel.tp
    raise RecipeError(
        f"{ranks} ranks are left of {parallel.ranks}, and no layout fits: pp x cp x tp = {parallel.pp} x"
        f" {parallel.cp} x {parallel.tp} = {fixed} stay, so do parallel.ep = {parallel.ep}, which has to divide dp x cp"
        f" x tp, and train.sequences_per_step = {sequences}, which replicas x dp have to divide; add machines, or"
        " choose another [parallel]"
    )


def _smaller(parallel: ParallelSettings, ranks: int, sequences: int, replicas: int, dp: int) -> ParallelSettings | None:
    """The job with other `replicas` and `dp`; None where that is no layout."""
    shard = dp * parallel.cp * parallel.tp
    if parallel.pp * replicas * shard > ranks or shard % parallel.ep or sequences % (replicas * dp):
        return None
    before = parallel.micro_batches or (2 * parallel.stages if parallel.pp > 1 else 1)
    share = sequences // (replicas * dp)
    largest = max(sequences // (parallel.batch_ranks * before), 1)
    for micro_batches in range(before, share + 1, before):
        if share % micro_batches == 0 and share // micro_batches <= largest:
            return dataclasses.replace(parallel, replicas=replicas, dp=dp, micro_batches=micro_batches)
    return None
