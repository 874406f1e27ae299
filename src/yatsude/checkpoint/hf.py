"""A model in memory, from and to a Hugging Face folder, tensor by tensor.

Reading takes as much memory as the model and one piece beside it. A rank of a job reads the boxes that it holds.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from yatsude.checkpoint import write as writer
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.pieces import pieces
from yatsude.checkpoint.write import Precision
from yatsude.errors import CheckpointError
from yatsude.model import float8
from yatsude.model.quantised import Quantised, quantise
from yatsude.model.transformer import Transformer
from yatsude.spec.config import ModelConfig
from yatsude.spec.stored import Stored, stored

__all__ = ["Boxes", "InMemory", "blank", "fill", "load", "load_quantised", "write"]

Box = tuple[slice, ...]
"""A range in each dimension of a tensor."""


class InMemory:
    """The weights of a model, by their names in files."""

    def __init__(self, model: Transformer) -> None:
        self.config = model.config
        self._tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        self._places = {name: entry.place for name, entry in stored(model.config).items()}

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """A tensor, or some rows of it, on the CPU."""
        place = self._places[name]
        part = self._tensors[place.tensor][place.index]
        return (part if rows is None else part[slice(*rows)]).cpu()

    def lies(self, name: str) -> None:
        """In no folder: it is in memory."""


class Boxes:
    """The weights of a folder by their names in our model, box by box: what a rank of a job reads of them."""

    def __init__(self, source: Folder) -> None:
        self.source = source
        self._parts: dict[str, list[tuple[str, Stored]]] = {}
        for name, entry in source.tensors.items():
            self._parts.setdefault(entry.place.tensor, []).append((name, entry))

    def read(self, tensor: str, box: Box) -> Tensor:
        """Numbers of a box, float32."""
        found = torch.empty([side.stop - side.start for side in box])
        for name, entry in self._parts[tensor]:
            common = _overlap(box, entry, (0, entry.shape[0]))
            if common:
                rows, columns, target = common
                found[target] = self.source.read(name, rows)[columns].reshape(found[target].shape).float()
        return found


def load(folder: Path, dtype: torch.dtype | None = None) -> Transformer:
    """Read a model; every tensor of the folder is used and every parameter filled, or it is an error.

    `dtype` is that of the weights in memory (none: as the embedding is on disk); router biases stay float32.
    """
    source = Folder(folder)
    model = blank(source.config, dtype or source.dtype)
    fill(model, source)
    return model


def load_quantised(folder: Path, dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """Read a model whose matrices stay in FP8 in memory, for inference; what is stored so is taken as it is.

    `dtype` is that of the other weights and of the products.
    """
    source = Folder(folder)
    blocks = source.blocks or float8.BLOCKS
    model = blank(source.config, dtype, blocks)
    rest = {}
    for name, entry in source.tensors.items():
        path, _, weight = entry.place.tensor.rpartition(".")
        part = model.get_submodule(path)
        if isinstance(part, Quantised) and weight != "bias":
            _hold(part, weight, name, entry, source)
        else:
            rest[name] = entry
    _fill_all(model, rest, source)
    return model


def _hold(part: Quantised, weight: str, name: str, entry: Stored, source: Folder) -> None:
    """Put a matrix into a part in FP8; gate and up lie in one, each in whole blocks."""
    place, height = entry.place, part.blocks[0]
    if place.rows and place.rows[0] % height:
        raise CheckpointError(f"{name} has {entry.shape[0]} rows: FP8 in memory needs a multiple of {height}")
    kept = source.keeps(name, part.blocks)
    stored, scale = (
        (source.finite(name), source.scale(name)) if kept else float8.quantised(source.read(name), part.blocks)
    )
    numbers, scales = part.held(weight)
    first = place.rows[0] // height if place.rows else 0
    expert = () if place.expert is None else (place.expert,)
    numbers[place.index].copy_(stored)
    scales[(*expert, slice(first, first + len(scale)))].copy_(scale)


def blank(config: ModelConfig, dtype: torch.dtype, blocks: tuple[int, int] | None = None) -> Transformer:
    """Build a model whose weights hold whatever lay in memory, to be filled; router biases and loads are 0.

    With `blocks`, the matrices of the layers are in FP8.
    """
    with torch.device("meta"):
        model = Transformer(config).to(dtype)
        if blocks:
            quantise(model, dtype, blocks)
    model.to_empty(device="cpu")
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    for router in model.routers:
        if router.e_score_correction_bias is not None:
            router.e_score_correction_bias = torch.zeros(config.n_routed_experts)
        router.load = torch.zeros(config.n_routed_experts, dtype=torch.int64)
    return model


def fill(model: Transformer, source: Folder) -> None:
    """Fill every weight of a model from a folder of the same config."""
    if model.config != source.config:
        raise CheckpointError(
            f"{source.path} is another model than the one to be filled; build it from that config.json"
        )
    _fill_all(model, source.tensors, source)


def _fill_all(model: Transformer, tensors: Mapping[str, Stored], source: Folder) -> None:
    """Fill the weights that these tensors are."""
    ours = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for name, entry in tensors.items():
        _fill(ours[entry.place.tensor], name, entry, source)
    source.refuse_other_copies()


def write(model: Transformer, folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    """Write config.json and the weights in `dtype` into an existing folder, in files of at most `shard_bytes`."""
    writer.write(InMemory(model), folder, Precision(dtype), shard_bytes)


def _fill(tensor: Tensor, name: str, entry: Stored, source: Folder) -> None:
    target = tensor[entry.place.index]
    for rows in pieces(entry.shape):
        part = target if rows is None else target[slice(*rows)]
        part.copy_(source.read(name, rows))


def _overlap(held: Box, entry: Stored, rows: tuple[int, int]) -> tuple[tuple[int, int], Box, Box] | None:
    """Where rows of a stored tensor meet what is held: rows to read, what to take of them, and where it belongs."""
    place, box = entry.place, list(held)
    target: list[slice] = []
    if place.expert is not None:
        first = box.pop(0)
        if not first.start <= place.expert < first.stop:
            return None
        target.append(slice(place.expert - first.start, place.expert - first.start + 1))
    shift = place.rows[0] if place.rows else 0
    start, stop = max(box[0].start, shift + rows[0]), min(box[0].stop, shift + rows[1])
    if start >= stop:
        return None
    target.append(slice(start - box[0].start, stop - box[0].start))
    target += [slice(0, side.stop - side.start) for side in box[1:]]
    return (start - shift, stop - shift), (slice(None), *box[1:]), tuple(target)
