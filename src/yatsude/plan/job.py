"""What is to be trained, on what: all that a plan is computed from, the layout aside."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from yatsude.errors import RecipeError
from yatsude.plan.rates import Rates, rates
from yatsude.spec.config import ModelConfig
from yatsude.spec.hardware import Accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.pieces import Kind

__all__ = [
    "WIDTH",
    "Dispatch",
    "Job",
    "Number",
    "Optimizer",
    "Precision",
    "micro_batch",
    "micro_batches",
    "remembered",
    "tokens",
]

T = TypeVar("T")

Precision = Literal["bf16", "fp8"]
Optimizer = Literal["adamw", "muon"]
Number = Literal["fp32", "bf16"]
Dispatch = Literal["all-to-all", "once-a-node"]
"""How routed rows travel: one copy an expert, or one a node where several experts of a token live there (DeepEP)."""
WIDTH: dict[Number, int] = {"fp32": 4, "bf16": 2}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A model, a machine, and a step; equal to itself alone, so that what was computed for it is found fast."""

    config: ModelConfig
    accelerator: Accelerator
    gpus: int
    sequence: int = 4096
    """Tokens."""
    batch: int = 4096
    """Sequences a step."""
    precision: Precision = "bf16"
    """Of the large products; masters are float32."""
    optimizer: Optimizer = "adamw"
    states: Number = "fp32"
    gradients: Number = "fp32"
    imbalance: float = 1.1
    """Rows of the fullest rank's experts over the mean; 1: forced balance."""
    dispatch: Dispatch = "all-to-all"
    overlap: bool = False
    """Whether rows travel while another micro-batch is computed: no schedule does so by itself."""
    scored: int = 0
    """Tokens that targets are held against, where the softmax is sampled; 0: the whole vocabulary."""
    measured: Rates | None = None
    """Rates of a calibration, in place of stated ones."""

    def __post_init__(self) -> None:
        """Refuse numbers that describe no job."""
        for name in ("gpus", "sequence", "batch"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} = {getattr(self, name)}: expected at least 1")
        if not self.imbalance >= 1:
            raise RecipeError(f"imbalance = {self.imbalance}: expected 1 (even) or more")

    @functools.cached_property
    def rates(self) -> Rates:
        """What the machine reaches."""
        return self.measured or rates(self.accelerator, self.precision)

    @functools.cached_property
    def known(self) -> dict[Any, Any]:
        """What `remembered` functions found."""
        return {}

    @property
    def classes(self) -> int:
        """What a target is held against."""
        return self.scored or self.config.vocab_size

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * self.sequence


def micro_batches(layout: ParallelSettings) -> int:
    """Micro-batches of a step that each rank sees; left open, twice as many as stages, or one without a pipeline."""
    return layout.micro_batches or (2 * layout.stages if layout.pp > 1 else 1)


def micro_batch(job: Job, layout: ParallelSettings) -> int:
    """Sequences of a micro-batch."""
    return max(job.batch // (layout.batch_ranks * micro_batches(layout)), 1)


def tokens(job: Job, layout: ParallelSettings) -> float:
    """Tokens of a micro-batch between the products, where sequences are cut over cp and tp."""
    return micro_batch(job, layout) * job.sequence / (layout.cp * layout.tp)


def remembered(function: Callable[[Job, ParallelSettings, Kind], T]) -> Callable[[Job, ParallelSettings, Kind], T]:
    """Compute what one layer costs once for all layouts that cut it alike: a search asks a thousand times."""

    @functools.wraps(function)
    def found(job: Job, layout: ParallelSettings, kind: Kind) -> T:
        key = (function, kind, layout.tp, layout.cp, layout.ep, micro_batch(job, layout))
        if key not in job.known:
            job.known[key] = function(job, layout, kind)
        return job.known[key]

    return found
