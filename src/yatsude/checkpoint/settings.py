"""How a model is exported."""

import dataclasses
from typing import Literal

from yatsude.errors import RecipeError
from yatsude.spec.chat import TEMPERATURE, TOP_P

__all__ = ["ExportSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What an exported folder says of itself, and in which precision its weights are."""

    name: str = "yatsude"
    """Title of the model card."""
    dtype: Literal["bfloat16", "float16", "float32", "float8"] = "bfloat16"
    """Of the weights; `float8` stores the matrices of the layers in blocks with a scale, as DeepSeek-V3 does."""
    shard_bytes: int = 5_000_000_000
    """A weight file holds at most this many bytes, or one tensor."""
    licence: str = "apache-2.0"
    """Licence of the weights themselves, as Hugging Face spells it; the manifests add those of the sources."""
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
        if not (self.name.strip() and self.licence.strip()):
            raise RecipeError("export.name and export.licence: expected some text, both are needed for the model card")
