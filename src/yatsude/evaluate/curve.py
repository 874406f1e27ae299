"""A training run read back from its `log.jsonl`, and when it crossed the n-grams' lines."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yatsude.errors import DataError
from yatsude.evaluate.results import Crossing, Curve, NgramBits
from yatsude.report.pictures import crossing

__all__ = ["crossings", "evaluation_documents", "read"]

POINTS = 80
"""A curve is averaged down to at most this many points."""


def read(log: Path, ngrams: Sequence[NgramBits] = ()) -> Curve:
    """Read the log of a run; with n-grams, find the minute at which it crossed each."""
    lines = _lines(log)
    steps = [line for line in lines if "loss" in line and "load" in line]
    scores = [line for line in lines if "bits_per_character" in line]
    if not steps:
        raise DataError(f"{log} has no training step; give the log of a run of 'yatsude train' or 'yatsude tune'")
    minutes, losses = (_thinned(column) for column in ([s["seconds"] / 60 for s in steps], [s["loss"] for s in steps]))
    loads = _thinned([line["load"] for line in steps]) if np.size(steps[0]["load"]) else []
    curve = Curve(
        minutes=minutes,
        losses=losses,
        score_minutes=[line["seconds"] / 60 for line in scores],
        scores=[line["bits_per_character"] for line in scores],
        tokens=steps[-1]["tokens"],
        crossings=(),
        busiest=[float(np.max(load)) for load in loads],
        idlest=[float(np.min(load)) for load in loads],
        drift=next((line["drift"] for line in reversed(steps) if "drift" in line), None),
    )
    found = crossings(curve.score_minutes, curve.scores, ngrams)
    return Curve(**{**vars(curve), "crossings": found})


def crossings(minutes: Sequence[float], scores: Sequence[float], ngrams: Sequence[NgramBits]) -> tuple[Crossing, ...]:
    """Find when a curve of validation scores came below each n-gram's figure for those documents, and stayed there."""
    return tuple(_crossing(minutes, scores, n) for n in ngrams if minutes and n.validation.characters)


def evaluation_documents(log: Path) -> int:
    """How many validation documents the run scored while it trained, from the recipe beside its log; 0: not known."""
    try:
        table = tomllib.loads((log.parent / "recipe.toml").read_text(encoding="utf-8")).get("train", {})
        return int(table.get("evaluation_documents", 0))
    except (OSError, tomllib.TOMLDecodeError, ValueError, TypeError):
        return 0


def _crossing(minutes: Sequence[float], scores: Sequence[float], ngram: NgramBits) -> Crossing:
    level = ngram.validation.per_character
    above = [place for place, score in enumerate(scores) if score > level]
    if not above:
        return Crossing(order=ngram.order, level=level, minute=minutes[0], before_first=True)
    last = above[-1]
    return Crossing(order=ngram.order, level=level, minute=crossing(minutes[last:], scores[last:], level))


def _lines(log: Path) -> list[dict[str, Any]]:
    try:
        lines = log.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line]
    except FileNotFoundError:
        raise DataError(f"no log at {log}; check the path, or leave it out") from None
    except ValueError as error:
        raise DataError(f"{log} is no log of a training run ({error}); check the path, or leave it out") from None


def _thinned(values: Sequence[Any]) -> list[Any]:
    """Average neighbours, numbers or tables of them, until at most `POINTS` are left."""
    groups = np.array_split(np.asarray(values, float), min(POINTS, len(values)))
    return [group.mean(0).tolist() for group in groups]
