"""Settings of fine-tuning, without torch."""

import dataclasses

from yatsude.train.settings import LoopSettings, OptimizerSettings

__all__ = ["TuneSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneSettings(LoopSettings):
    """Supervised fine-tuning on conversations."""

    sources: tuple[str, ...] = ("pairs",)
    """`pairs`: tasks made from the data folder's texts and translations; `file:PATH`: JSON lines with `messages`."""
    conversations: int = 60_000
    """How many of the tasks made from pairs are used at most."""
    steps: int = 200
    warmup: float = 0.05
    decay: float = 0.95
    evaluations: int = 4
    evaluation_documents: int = 300
    optimizer: OptimizerSettings = dataclasses.field(
        default_factory=lambda: OptimizerSettings(rate=5e-4, embedding_rate=1e-3, muon_rate=2e-3, weight_decay=0.0)
    )
