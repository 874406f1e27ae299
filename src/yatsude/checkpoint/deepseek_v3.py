"""How a DeepSeek-V3 checkpoint names its tensors on disk, and where each lies in our model.

on disk                                            in the model
model.layers.3.mlp.experts.5.gate_proj.weight  ->  layers.3.mlp.experts.gate_up_proj [5, :width]
model.layers.3.mlp.experts.5.down_proj.weight  ->  layers.3.mlp.experts.down_proj    [5]
model.layers.0.mlp.up_proj.weight              ->  layers.0.mlp.gate_up_proj.weight  [width:]
model.norm.weight                              ->  norm.weight
lm_head.weight                                 ->  lm_head.weight
"""

import dataclasses
from collections.abc import Iterator

from torch import Tensor

from yatsude.model.transformer import Transformer

__all__ = ["Place", "places"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor of the checkpoint lies: a tensor of the model, and a part of it."""

    tensor: str
    index: tuple[int | slice, ...] = ()

    def of(self, tensors: dict[str, Tensor]) -> Tensor:
        """Look at the part itself, a view."""
        return tensors[self.tensor][self.index]


def places(model: Transformer) -> dict[str, Place]:
    """Name on disk -> place in the model, for all that a checkpoint holds, in the order of a forward pass."""
    tensors = model.state_dict()
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]  # the same tensor as the embedding, stored once
    return {name: place for ours, tensor in tensors.items() for name, place in _stored(ours, tensor)}


def _stored(ours: str, tensor: Tensor) -> Iterator[tuple[str, Place]]:
    name = ours if ours.startswith("lm_head.") else f"model.{ours}"
    if ".experts." in ours:
        for expert in range(tensor.shape[0]):
            base = name.replace(".experts.", f".experts.{expert}.") + ".weight"
            yield from _halves(base, ours, tensor.shape[1], (expert,))
    else:
        yield from _halves(name, ours, tensor.shape[0], ())


def _halves(name: str, ours: str, rows: int, at: tuple[int, ...]) -> Iterator[tuple[str, Place]]:
    """Gate and up projection are one tensor in the model and two on disk."""
    if "gate_up_proj" not in name:
        yield name, Place(ours, at)
        return
    yield name.replace("gate_up_proj", "gate_proj"), Place(ours, (*at, slice(rows // 2)))
    yield name.replace("gate_up_proj", "up_proj"), Place(ours, (*at, slice(rows // 2, rows)))
