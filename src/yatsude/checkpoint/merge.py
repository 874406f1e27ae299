"""Several models of one shape made into one, tensor by tensor, in float32.

average   Σ weight · model / Σ weight                        (model soups, arXiv 2203.05482)
task      base + Σ weight · (model - base)                   (task vectors, arXiv 2212.04089)
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from yatsude.checkpoint.write import Weights
from yatsude.errors import CheckpointError, RecipeError
from yatsude.files import sha256_of
from yatsude.spec.config import ModelConfig
from yatsude.spec.hf import VOCABULARIES

__all__ = ["Merged", "refuse_other_tokens"]

FREE = ("max_position_embeddings", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id")
"""Fields in which the models may differ; the first one's (or the base's) are kept."""


class Merged:
    """The weights of the merged model, made as they are asked for."""

    def __init__(self, models: Sequence[Weights], weights: Sequence[float], base: Weights | None = None) -> None:
        if len(models) != len(weights) or not models:
            raise RecipeError(f"{len(weights)} weights for {len(models)} models: expected one each")
        whole = sum(weights)
        if base is None and not whole > 0:
            raise RecipeError(f"weights {', '.join(f'{w:g}' for w in weights)}: expected a sum above 0")
        self.models, self.base = tuple(models), base
        self.weights = tuple(weights) if base else tuple(weight / whole for weight in weights)
        self.config = (base or models[0]).config
        for model in models:
            _same_shape(self.config, model.config)

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """A tensor, or some rows of it, in float32."""
        base = self.base.read(name, rows).float() if self.base else None
        total = torch.zeros(()) if base is None else base.clone()
        for model, weight in zip(self.models, self.weights, strict=True):
            part = model.read(name, rows).float()
            total = total + weight * (part if base is None else part - base)
        return total

    def lies(self, name: str) -> None:
        """In no folder: it is made of several."""


def refuse_other_tokens(one: Path, other: Path) -> None:
    """Refuse folders of models that read other tokens under the same numbers."""
    for name in VOCABULARIES:
        mine, theirs = one / name, other / name
        if mine.is_file() != theirs.is_file() or (mine.is_file() and sha256_of(mine) != sha256_of(theirs)):
            raise CheckpointError(
                f"{mine} and {theirs} differ: rows of the models may mean other tokens; merge models with one tokenizer"
            )


def _same_shape(config: ModelConfig, other: ModelConfig) -> None:
    for field in dataclasses.fields(config):
        mine, theirs = getattr(config, field.name), getattr(other, field.name)
        if field.name not in FREE and mine != theirs:
            raise CheckpointError(f"the models differ in {field.name}: {mine!r} and {theirs!r}; expected one shape")
