"""Settings of training, without torch."""

import dataclasses
from typing import ClassVar, Literal

from yatsude.errors import RecipeError, nearest

__all__ = ["SINKS", "LoopSettings", "OptimizerSettings", "TrainSettings", "WatchSettings"]

SINKS = ("tensorboard", "mlflow", "wandb")

BF16_STEP = 2**-6
"""The least share of a new gradient in an average of 8 bits: four times what a rounding can swallow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW for all, or Muon for the matrices of the layers."""

    muon: bool = True
    rate: float = 1e-3
    embedding_rate: float = 5e-4
    muon_rate: float = 6e-3
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-10
    momentum: float = 0.95
    weight_decay: float = 0.1
    clip: float = 1.0
    states: Literal["fp32", "bf16"] = "fp32"
    """Precision in which a job of ranks keeps its moments (DeepSeek-V3, section 3.3.3: bf16)."""

    def __post_init__(self) -> None:
        """Refuse averages that would stand still."""
        step = 1 - max(self.beta1, self.beta2, self.momentum)
        if self.states == "bf16" and step < BF16_STEP:
            raise RecipeError(
                f"optimizer.states = 'bf16': averages that move by {step:.3g} a step are rounded back to what they"
                f" were; keep beta1, beta2 and momentum at {1 - BF16_STEP:.4g} at most, or states at 'fp32'"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What pre-training and fine-tuning share; nothing of the machine but its precision and workers."""

    table: ClassVar[str] = "train"
    """Of a recipe: messages name it."""
    title: ClassVar[str] = "training"
    """What the progress bar calls it."""
    steps: int = 1000
    sequence_length: int = 256
    sequences_per_step: int = 8
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises."""
    decay: float = 0.9
    """Share of the steps, the last ones, over which it falls to zero."""
    balance_rate: float = 1e-2
    """How far a router's bias moves a step against the load: a run of some hundred steps has no time for 1e-3."""
    sequence_balance: float = 0.0
    """Weight of the sequence-wise balance loss; DeepSeek-V3 has 1e-4. Routers with softmax scores need about 1e-2."""
    router_z: float = 0.0
    """Weight of the routers' z-loss, which keeps their scores small; 1e-3 is usual."""
    mtp_weight: float = 0.3
    """Weight of the loss of the layers of multi-token prediction together, where the model has some."""
    separate_documents: bool = True
    """A token sees its own document only, not its neighbours in the packed sequence."""
    precision: Literal["auto", "bf16", "fp32", "fp8"] = "auto"
    """Precision of the products; masters are always float32. "fp8" is for jobs of ranks."""
    workers: int = 0
    """Threads that each take a share of the sequences; 0: one a core."""
    seed: int = 0
    evaluations: int = 10
    """How often, spread over the run, validation text is scored."""
    evaluation_documents: int = 1500
    checkpoint_steps: int = 200
    """A state is kept after every so many steps."""
    keep_checkpoints: int = 2
    """How many of the last states stay."""
    keep_every: int = 0
    """States after multiples of so many steps stay for good; 0: none."""
    keep_best: bool = False
    """Whether the state with the best score on validation text stays; every better one is then written at once."""
    spikes: int = 0
    """How often a run leaves out samples that make it go wrong, instead of ending; 0: it ends, as a rate that is too
    high makes every sample go wrong."""
    optimizer: OptimizerSettings = dataclasses.field(default_factory=OptimizerSettings)

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing can be trained."""
        least = {
            "steps": 1,
            "sequence_length": 2,
            "sequences_per_step": 1,
            "workers": 0,
            "evaluations": 0,
            "evaluation_documents": 1,
            "checkpoint_steps": 1,
            "keep_checkpoints": 1,
            "keep_every": 0,
            "spikes": 0,
        }
        for name, value in least.items():
            if getattr(self, name) < value:
                raise RecipeError(f"{self.table}.{name} = {getattr(self, name)}: expected at least {value}")
        if self.keep_best and not self.evaluations:
            raise RecipeError(
                f"{self.table}.keep_best = true: nothing is scored with evaluations = 0; set it, or leave keep_best out"
            )
        for name in ("balance_rate", "sequence_balance", "router_z", "mtp_weight"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"{self.table}.{name} = {getattr(self, name)}: expected 0 or more")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{self.table}.{name} = {getattr(self, name)}: expected a share from 0 to 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings(LoopSettings):
    """One pre-training run."""

    base: str = ""
    """Folder of a model to go on from, with the tokenizer of this run; its shape takes the place of [model]'s."""
    bigram_start: bool = True
    """Start embedding and head from the text's bigram statistics, so that no step is spent on learning counts."""
    candidates: int = 4096
    """About how many tokens a step's targets are held against; 0 or a smaller vocabulary: all of it."""

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing can be trained."""
        super().__post_init__()
        if self.candidates < 0:
            raise RecipeError(f"train.candidates = {self.candidates}: expected 0 (all tokens) or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """Where else a run's figures go; nothing of it changes what is computed."""

    sinks: tuple[str, ...] = ()
    """Beside `log.jsonl`: "tensorboard", "mlflow", "wandb", as files below the stage's folder; nothing is sent."""

    def __post_init__(self) -> None:
        """Refuse what nothing is written for."""
        for name in self.sinks:
            if name not in SINKS:
                raise RecipeError(f"watch.sinks: unknown '{name}'{nearest(name, SINKS)}")
