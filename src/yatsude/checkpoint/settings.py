"""How a model is exported, and how a dense one is made into a mixture."""

import dataclasses
from typing import Literal

from yatsude.errors import RecipeError
from yatsude.spec.chat import TEMPERATURE, TOP_P

__all__ = ["ExportSettings", "UpcycleSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What an exported folder says of itself, and in which precision its weights are."""

    name: str = "yatsude"
    """Title of the model card."""
    dtype: Literal["bfloat16", "float16", "float32", "float8"] = "bfloat16"
    """Of the weights; `float8` stores the matrices of the layers in blocks with a scale, as DeepSeek-V3 does."""
    shard_bytes: int = 5_000_000_000
    """A weight file holds at most this many bytes, or one tensor."""
    licence: str = ""
    """Licence of the weights themselves, as Hugging Face spells it. None given: that of the models they were made from,
    and apache-2.0 for what a run trained from nothing. The manifests add those of the text."""
    languages: tuple[str, ...] = ("ja", "en")
    temperature: float = TEMPERATURE
    """Sampling temperature that generation_config.json recommends; 0 recommends greedy decoding."""
    top_p: float = TOP_P

    def __post_init__(self) -> None:
        """Refuse numbers that no program could sample with."""
        if self.shard_bytes < 1:
            raise RecipeError(f"export.shard_bytes = {self.shard_bytes}: expected at least 1")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise RecipeError(
                f"export.temperature = {self.temperature}, top_p = {self.top_p}:"
                " expected a temperature from 0, and top_p above 0 up to 1"
            )
        if not self.name.strip() or self.licence != self.licence.strip():
            raise RecipeError(
                f"export.name = {self.name!r}, licence = {self.licence!r}: expected a title for the model card, and a"
                " licence without blanks around it"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpcycleSettings:
    """How a dense model becomes a mixture."""

    experts: int = 8
    experts_per_token: int = 2
    ratio: float = 0.5
    """Share of each expert's intermediate columns that is drawn anew, from the mean and spread of what stood there."""
    slices: int = 1
    """Into how many slices the width of the dense layer is cut; an expert is one of them."""
    shared: int = 0
    """Slices that every token uses, as a shared expert; with 1 slice in all, the whole layer, at half its weight."""
    dense_layers: int = 0
    """Layers at the bottom that stay dense."""
    model_type: str | None = None
    """Layout of the mixture; none: the one with the same attention (glm4_moe where there is a shared expert)."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        for name in ("experts", "experts_per_token", "slices"):
            if getattr(self, name) < 1:
                raise RecipeError(f"upcycle.{name} = {getattr(self, name)}: expected at least 1")
        if not 0 <= self.ratio <= 1:
            raise RecipeError(f"upcycle.ratio = {self.ratio}: expected a share from 0 to 1")
        if not 0 <= self.shared <= max(1, self.slices - 1):
            raise RecipeError(f"upcycle.shared = {self.shared}: expected 0 to {max(1, self.slices - 1)}")
        if self.dense_layers < 0 or self.seed < 0:
            raise RecipeError(f"upcycle.dense_layers = {self.dense_layers}, seed = {self.seed}: expected 0 or more")
        if self.experts % self.routed:
            raise RecipeError(
                f"upcycle.experts = {self.experts}: expected a multiple of {self.routed}, the slices that are routed"
            )

    @property
    def routed(self) -> int:
        """Slices that routed experts are, each of as many experts as the next."""
        return self.slices - self.shared if self.slices > 1 else 1
