"""Bits per character of the model, for each kind of text."""

from collections.abc import Mapping

import torch

from yatsude.evaluate.heldout import Part
from yatsude.evaluate.results import Bits
from yatsude.model.scoring import score
from yatsude.model.transformer import Transformer

__all__ = ["measure"]


@torch.inference_mode()
def measure(model: Transformer, kinds: Mapping[str, Part], window: int) -> dict[str, Bits]:
    """Score all documents of each kind, reading `window` tokens at a time; the end of each text is paid for."""
    scores = {name: score(model, part, window) for name, part in kinds.items()}
    return {name: Bits(found.bits, found.characters) for name, found in scores.items()}
