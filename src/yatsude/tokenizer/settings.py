"""What a tokenizer is trained with."""

import dataclasses
from typing import Literal

from yatsude.errors import RecipeError
from yatsude.spec.chat import SPECIAL_TOKENS

__all__ = ["Pattern", "TokenizerSettings"]

Pattern = Literal["gpt-4", "deepseek-v3"]
SMALLEST = 256 + len(SPECIAL_TOKENS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """Size and training text of a byte-level BPE, or whose tokenizer is taken."""

    base: str = ""
    """Folder of a model whose tokenizer is taken as it is, to go on training that model; the rest of these settings
    then says nothing."""

    vocab_size: int = 16384
    """Number of tokens, special tokens and the 256 bytes included; a small corpus may give fewer."""
    min_frequency: int = 2
    """A pair of tokens seen less often than this is never merged."""
    training_characters: int = 2_000_000
    """The vocabulary is learned from an even sample of this many characters, about 5 s of one core for each million;
    8 million give tokens 1.4 % longer than 2 million."""
    english_share: float = 0.05
    """Share of those characters taken from the English translations, which chat answers need but pre-training does
    not read. With 0.05 Japanese tokens are 0.6 % shorter than without, English ones 40 % longer."""
    pattern: Pattern = "gpt-4"
    """Where text is cut before merging; what each choice costs stands in `tokenizer/train.py`."""

    def __post_init__(self) -> None:
        """Refuse numbers no tokenizer can be trained with."""
        if self.vocab_size < SMALLEST:
            raise RecipeError(
                f"tokenizer.vocab_size = {self.vocab_size}: expected at least {SMALLEST},"
                f" the 256 bytes and {len(SPECIAL_TOKENS)} special tokens"
            )
        if self.min_frequency < 1 or self.training_characters < 1:
            raise RecipeError(
                f"tokenizer.min_frequency = {self.min_frequency}, training_characters = {self.training_characters}:"
                " expected at least 1"
            )
        if not 0 <= self.english_share < 1:
            raise RecipeError(f"tokenizer.english_share = {self.english_share}: expected 0 up to, not with, 1")
