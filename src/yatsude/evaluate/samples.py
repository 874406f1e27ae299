"""Held-out beginnings continued by the model, beside the text as it really goes on."""

from collections.abc import Mapping, Sequence

import numpy as np

from yatsude.engine.engine import Completion, Engine
from yatsude.engine.settings import SamplingSettings
from yatsude.evaluate.heldout import Part, Tokens
from yatsude.evaluate.results import Sample
from yatsude.evaluate.settings import EvaluateSettings

__all__ = ["continue_beginnings"]

SHORTEST = 8
"""Tokens: a shorter document has no beginning and continuation worth showing."""
BEGINNING = 24
"""A beginning is half of a document, at most this many tokens."""


def continue_beginnings(engine: Engine, kinds: Mapping[str, Part], settings: EvaluateSettings) -> tuple[Sample, ...]:
    """Continue `settings.samples` beginnings, the kinds of text in turn: the likeliest tokens, and drawn ones."""
    chosen = _chosen(kinds, settings.samples)
    cuts = [min(BEGINNING, len(document) // 2) for _, document in chosen]
    prompts = [document[:cut].tolist() for (_, document), cut in zip(chosen, cuts, strict=True)]
    limit = settings.sample_tokens
    greedy = engine.generate(prompts, SamplingSettings(temperature=0, max_tokens=limit))
    drawing = SamplingSettings(
        temperature=settings.temperature, top_p=settings.top_p, seed=settings.seed, max_tokens=limit
    )
    drawn = engine.generate(prompts, drawing)
    decode = engine.tokenizer.decode
    return tuple(
        Sample(
            kind=kind,
            beginning=decode(prompt),
            truth=decode(document[cut : cut + limit]) + ("…" if len(document) - 1 > cut + limit else ""),
            greedy=_shown(first),
            sampled=_shown(second),
        )
        for (kind, document), cut, prompt, first, second in zip(chosen, cuts, prompts, greedy, drawn, strict=True)
    )


def _chosen(kinds: Mapping[str, Part], number: int) -> list[tuple[str, Tokens]]:
    """Pick documents spread evenly over each kind."""
    found: list[tuple[str, Tokens]] = []
    for place, (kind, part) in enumerate(kinds.items()):
        wanted = number // len(kinds) + (place < number % len(kinds))
        long_enough = [document for document in part.documents() if len(document) >= SHORTEST]
        found += [(kind, long_enough[n]) for n in spread(len(long_enough), wanted)]
    return found


def spread(size: int, wanted: int) -> Sequence[int]:
    """Choose `wanted` of `size` places, evenly and not at the very edges; all of them where there are fewer."""
    return np.unique((np.arange(min(size, wanted)) + 0.5) * size // max(min(size, wanted), 1)).astype(int).tolist()


def _shown(completion: Completion) -> str:
    return completion.text + ("" if completion.finish_reason == "stop" else "…")
