"""Settings of fine-tuning, without torch."""

import dataclasses
from typing import ClassVar

from yatsude.errors import RecipeError
from yatsude.train.settings import LoopSettings, OptimizerSettings

__all__ = ["TuneOptimizerSettings", "TuneSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneOptimizerSettings(OptimizerSettings):
    """The keys of `[train.optimizer]`, with tuning's own defaults for those that are left out."""

    rate: float = 5e-4
    embedding_rate: float = 1e-3
    muon_rate: float = 2e-3
    weight_decay: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneSettings(LoopSettings):
    """Supervised fine-tuning on conversations."""

    table: ClassVar[str] = "tune"
    title: ClassVar[str] = "tuning"
    sources: tuple[str, ...] = ("pairs",)
    """`pairs`: tasks made from the data folder's texts and translations; `file:PATH`: JSON lines with `messages`."""
    conversations: int = 60_000
    """How many of the tasks made from pairs are used at most."""
    steps: int = 200
    warmup: float = 0.05
    decay: float = 0.95
    evaluations: int = 4
    evaluation_documents: int = 300
    optimizer: TuneOptimizerSettings = dataclasses.field(default_factory=TuneOptimizerSettings)

    def __post_init__(self) -> None:
        """Refuse what nothing can be learned from; whether the files are there is seen when they are read."""
        super().__post_init__()
        unknown = [source for source in self.sources if source != "pairs" and not source.startswith("file:")]
        if unknown or not self.sources:
            what = f"'{unknown[0]}' is unknown" if unknown else "there are none"
            raise RecipeError(f"tune.sources: {what}; expected 'pairs' or 'file:PATH'")
        if self.conversations < 1:
            raise RecipeError(f"tune.conversations = {self.conversations}: expected at least 1")
