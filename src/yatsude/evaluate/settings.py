"""What is measured, and on how much text."""

import dataclasses

from yatsude.errors import RecipeError
from yatsude.spec.chat import TEMPERATURE, TOP_P
from yatsude.spec.settings import Precision

__all__ = ["EvaluateSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """The `[evaluate]` table of a recipe."""

    orders: tuple[int, ...] = (3, 4, 5)
    """Character n-grams that the model is held against."""
    documents: int | None = None
    """How many held-out documents are scored, from the first on; not given: all."""
    window: int = 256
    """Tokens read at a time while scoring; best as long as the sequences of training."""
    router_tokens: int = 16_384
    """Held-out tokens on which the experts' load is counted, shared evenly by the kinds of text."""
    router_shuffles: int = 200
    """How often kinds and styles are dealt anew to the texts, to see what experts tell about them by chance."""
    samples: int = 6
    """Held-out beginnings that the model continues."""
    sample_tokens: int = 48
    """Longest continuation, in tokens."""
    chat_prompts: int = 20
    answer_tokens: int = 256
    """Longest answer; one that reaches it did not end by itself. The chat page allows as many."""
    temperature: float = TEMPERATURE
    top_p: float = TOP_P
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing can be measured."""
        if not self.orders or min(self.orders) < 1:
            raise RecipeError(f"evaluate.orders = {list(self.orders)}: expected at least one, each from 1 on")
        least = {
            "window": 2,
            "router_tokens": 1,
            "router_shuffles": 19,
            "samples": 0,
            "sample_tokens": 1,
            "chat_prompts": 1,
            "answer_tokens": 1,
        }
        for name, value in {**least, "documents": 1}.items():
            given = getattr(self, name)
            if given is not None and given < value:
                raise RecipeError(f"evaluate.{name} = {given}: expected at least {value}")
        if not (0 <= self.temperature <= 2 and 0 < self.top_p <= 1):
            raise RecipeError(
                f"evaluate.temperature = {self.temperature}, top_p = {self.top_p}:"
                " expected a temperature from 0 to 2, and top_p above 0 up to 1"
            )
