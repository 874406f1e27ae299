"""How a job is cut over ranks, as the `[parallel]` section of a recipe says it. No torch.

Every rank stands at one place of a mesh, slowest dimension first:

    (pp, replicas, dp, cp, tp)     for all weights but the experts', which are sharded over dp x cp
    (pp, replicas, edp, ep)        for the experts: dp x cp x tp = edp x ep, and they are sharded over edp

so that expert parallelism takes no ranks of its own: the ranks of one stage and replica are cut a second time.
"""

import dataclasses
from typing import Literal

from yatsude.errors import RecipeError

__all__ = ["Dispatch", "ParallelSettings", "Recompute", "Schedule"]

Schedule = Literal["1f1b", "interleaved", "zero-bubble", "zbv", "dualpipev"]
Recompute = Literal["none", "selective", "full"]
Dispatch = Literal["all-to-all", "deepep"]

SPLIT_BACKWARD: tuple[Schedule, ...] = ("zero-bubble", "zbv", "dualpipev")
"""Schedules in which the gradients of inputs and of weights are two steps."""
V_SHAPED: tuple[Schedule, ...] = ("zbv", "dualpipev")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelSettings:
    """Ranks along each axis; all 1: one process."""

    dp: int = 1
    """Data parallel ranks that share one copy of the weights, each a shard of it (FSDP)."""
    replicas: int = 1
    """Copies of all that, each with data of its own (HSDP)."""
    tp: int = 1
    """Tensor parallel ranks, which also cut the sequence between the products."""
    pp: int = 1
    """Pipeline ranks."""
    ep: int = 1
    """Ranks over which the experts are dealt out; a divisor of dp x cp x tp."""
    cp: int = 1
    """Context parallel ranks: each holds a part of every sequence."""
    schedule: Schedule = "1f1b"
    """Order of the micro-batches through the pipeline."""
    stages_per_rank: int = 1
    """Stages of the pipeline that a rank holds: 1 for "1f1b", 2 for "zbv" and "dualpipev"."""
    micro_batches: int = 0
    """Parts that a rank's sequences of a step go through the pipeline in; 0: twice as many as stages."""
    recompute: Recompute = "none"
    """What the backward pass computes again: nothing, attention (its queries, keys and values), or whole layers."""
    dispatch: Dispatch = "all-to-all"
    """By what rows travel to their experts: PyTorch's own exchange, or the library DeepEP."""
    offload: bool = False
    """Whether weights and optimizer wait in the memory of the CPU."""

    def __post_init__(self) -> None:
        """Refuse numbers that are no mesh."""
        for name in ("dp", "replicas", "tp", "pp", "ep", "cp", "stages_per_rank"):
            if getattr(self, name) < 1:
                raise RecipeError(f"parallel.{name} = {getattr(self, name)}: expected at least 1")
        if self.micro_batches < 0:
            raise RecipeError(f"parallel.micro_batches = {self.micro_batches}: expected 0 or more")
        if self.shard_ranks % self.ep:
            raise RecipeError(
                f"parallel.ep = {self.ep}: expected a divisor of dp x cp x tp = {self.shard_ranks}, the ranks that"
                " experts are dealt out to"
            )
        if self.dispatch == "deepep" and self.ep == 1:
            raise RecipeError("parallel.dispatch = 'deepep': with parallel.ep = 1 no rows travel; leave it out")
        wanted = {"1f1b": 1, "zbv": 2, "dualpipev": 2}.get(self.schedule)
        if self.pp > 1 and wanted and self.stages_per_rank != wanted:
            raise RecipeError(
                f"parallel.stages_per_rank = {self.stages_per_rank}: schedule '{self.schedule}' has {wanted} a rank"
            )

    @property
    def ranks(self) -> int:
        """Processes of the whole job."""
        return self.pp * self.replicas * self.shard_ranks

    @property
    def shard_ranks(self) -> int:
        """Ranks of one stage and one replica."""
        return self.dp * self.cp * self.tp

    @property
    def edp(self) -> int:
        """Ranks that share one deal of experts, each a shard of it."""
        return self.shard_ranks // self.ep

    @property
    def stages(self) -> int:
        """Stages of the pipeline."""
        return self.pp * self.stages_per_rank

    @property
    def batch_ranks(self) -> int:
        """Ranks that read different sequences."""
        return self.replicas * self.dp

    @property
    def is_v_shaped(self) -> bool:
        """Whether a rank's second stage is the mirror of its first, so that rank 0 has the first and the last."""
        return self.pp > 1 and self.schedule in V_SHAPED

    @property
    def splits_backward(self) -> bool:
        """Whether the schedule takes the gradients of weights apart from those of inputs."""
        return self.pp > 1 and self.schedule in SPLIT_BACKWARD
