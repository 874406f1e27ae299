"""What the data stage is asked to do."""

import dataclasses

from yatsude.errors import RecipeError

__all__ = ["DataSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The `[data]` table of a recipe."""

    sources: tuple[str, ...] = ("tatoeba-ja", "manpages-ja")
    """Names of the catalogue, `file:PATH[#KIND]` (a text, JSONL or Parquet file, or a folder of them) or
    `hf:OWNER/NAME[:SPLIT]` (a Parquet data set of the Hugging Face hub; see `data/sources/hub.py`)."""
    cache: str = "~/.cache/yatsude"
    """Where downloads are kept; with them there, the stage needs no network."""
    validation_fraction: float = 0.02
    """Share of the characters of each domain that is scored during training, and that settings may be chosen by."""
    held_out_fraction: float = 0.02
    """Share of the characters of each domain that only the evaluation sees."""
    twin_similarity: float = 0.5
    """Texts whose sets of character 3-grams have at least this Jaccard similarity stay in one part of the split."""
    min_characters: int = 4
    max_characters: int = 1_000_000
    seed: int = 0
    """Decides which texts are set aside, and the order of the texts."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work, with the value."""
        if not self.sources:
            raise RecipeError("data.sources is empty; name at least one, such as 'tatoeba-ja' or 'file:texts/'")
        for name in ("validation_fraction", "held_out_fraction"):
            if not 0 < getattr(self, name) <= 0.5:
                raise RecipeError(f"data.{name} = {getattr(self, name)}: expected more than 0, at most 0.5")
        if self.validation_fraction + self.held_out_fraction >= 1:
            raise RecipeError(
                "data.validation_fraction and held_out_fraction are 0.5 each: nothing is left to train on"
            )
        if not 0.3 <= self.twin_similarity <= 1:
            raise RecipeError(f"data.twin_similarity = {self.twin_similarity}: expected 0.3 to 1")
        if not 1 <= self.min_characters <= self.max_characters:
            raise RecipeError(
                f"data.min_characters = {self.min_characters}: expected 1 to max_characters ({self.max_characters})"
            )
