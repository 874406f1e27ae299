"""How an engine runs and how it draws tokens."""

import dataclasses
from typing import Literal

from yatsude.errors import RecipeError, RequestError

__all__ = ["EngineSettings", "SamplingSettings"]

LEAST_TEMPERATURE = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """The `[engine]` table of a recipe."""

    precision: Literal["auto", "bf16", "fp32", "fp8"] = "auto"
    """Of weights and cache; `auto` measures bf16 and fp32 on this machine and prints what it found. `fp8` keeps the
    layers' matrices in FP8 and all else in bf16: half the memory, slower on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    context: int = 0
    """Longest prompt plus answer, in tokens; 0: as long as the model was made for."""
    max_rows: int = 16
    """How many answers are written at the same time; more wait."""
    prefill_tokens: int = 512
    """A prompt is read in pieces of at most this many tokens, which bounds the memory that reading takes."""
    threads: int = 0
    """CPU threads of one product; 0: as PyTorch chooses."""
    speculate: bool = False
    """Guess a token ahead where the model has a layer for it: the same answers, in fewer steps."""

    def __post_init__(self) -> None:
        """Refuse numbers no engine can run with."""
        for name, least in (("context", 0), ("max_rows", 1), ("prefill_tokens", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise RecipeError(f"engine.{name} = {getattr(self, name)}: expected at least {least}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How the tokens of one answer are chosen, and when it ends; the defaults are those of OpenAI's interface."""

    temperature: float = 1.0
    """0: always the likeliest token."""
    top_p: float = 1.0
    """Draw from the smallest set of likeliest tokens that holds this much probability."""
    top_k: int = 0
    """Draw from this many likeliest tokens; 0: from all."""
    seed: int | None = None
    """The same seed gives the same answer on the same machine; None: a new one every time."""
    max_tokens: int | None = None
    """Longest answer in tokens; None: up to the end of the context."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer, themselves left out."""
    presence_penalty: float = 0.0
    """Taken off the score of every token that the answer holds already."""
    frequency_penalty: float = 0.0
    """Taken off the score of a token once for every time that the answer holds it."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token id and what is added to its score; -100 forbids a token."""
    logprobs: int | None = None
    """Report each token's log-probability and those of this many likeliest tokens; None: neither."""
    ignore_end: bool = False
    """Go on after the token that ends a text: to measure speed."""

    def __post_init__(self) -> None:
        """Refuse values outside their range, by name."""
        ranges = (
            ("temperature", 0.0, 2.0),
            ("top_p", 0.0, 1.0),
            ("top_k", 0, None),
            ("max_tokens", 1, None),
            ("presence_penalty", -2.0, 2.0),
            ("frequency_penalty", -2.0, 2.0),
            ("logprobs", 0, 20),
        )
        for name, least, most in ranges:
            value = getattr(self, name)
            if value is not None and not (least <= value and (most is None or value <= most)):
                upper = f" to {most}" if most is not None else " or more"
                raise RequestError(f"{name} = {value}: expected {least}{upper}")
        if self.top_p == 0:
            raise RequestError("top_p = 0: expected more than 0; for the likeliest token alone use temperature 0")
        if any(not stop for stop in self.stop):
            raise RequestError("stop holds an empty text; expected at least one character")

    def seeded(self, number: int) -> "list[SamplingSettings]":
        """Settings of `number` answers: with a seed, each its own, or all would be drawn with the same numbers."""
        if self.seed is None:
            return [self] * number
        return [dataclasses.replace(self, seed=self.seed + answer) for answer in range(number)]

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken; float32 cannot divide by a smaller temperature."""
        return self.temperature < LEAST_TEMPERATURE

    @property
    def cuts(self) -> bool:
        """Whether top-k or top-p leave any token out."""
        return self.top_k > 0 or self.top_p < 1
