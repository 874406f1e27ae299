"""The weights of a Hugging Face folder: config.json, and one safetensors file or shards with an index.

Tensors are read one by one, or some rows at a time, so that a folder of any size can be walked through. FP8 in blocks
is turned into numbers on the way.
"""

import dataclasses
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from yatsude.checkpoint.pieces import pieces
from yatsude.checkpoint.shard import Entry, Shard
from yatsude.errors import CheckpointError
from yatsude.model import float8
from yatsude.progress import say_once
from yatsude.spec import hf as spec
from yatsude.spec.config import ModelConfig
from yatsude.spec.stored import EMBEDDING, Place, Shape, Stored, names_of_copies, stored

__all__ = ["INDEX", "WEIGHTS", "Folder", "is_finite"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
DERIVED = ".rotary_emb.inv_freq"
"""Old files hold the rotary frequencies too, which follow from config.json."""
LISTED = 5


class Folder:
    """A folder whose tensors are all accounted for: each has its place in the model of config.json, none is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        page = spec.page_of(path)
        self.config = spec.read(path)
        try:
            self.blocks = spec.quantised_blocks(page)
        except CheckpointError as error:
            raise CheckpointError(f"{path / spec.CONFIG}: {error}") from None
        self.shards = {shard.path.name: shard for shard in (Shard(file) for file in _files(path))}
        if self.config.sliding_window:
            say_once(f"{path} looks {self.config.sliding_window} tokens back; longer texts are not computed here")
        if rest := sorted(self._beside()):
            say_once(f"{path} holds weights that are no part of the model, {_some(rest)}; they are left aside")
        self._originals: dict[str, str] = {}
        self._file = self._where()
        self._refuse_other_index()
        self.config = self._as_stored(self.config)
        self.tensors = self._matched()
        """Name -> what it is, in the order of a forward pass."""
        self._names = {entry.place: name for name, entry in self.tensors.items()}
        left_out = {n: ours for n, ours in names_of_copies(self.config).items() if n not in self._file}
        self._originals = {name: self._names[Place(ours)] for name, ours in left_out.items()}

    @property
    def copies(self) -> dict[str, str]:
        """Names under which the folder repeats a tensor -> the tensor of the model."""
        known = {**names_of_copies(self.config), **_tied_head(self.config.tie_word_embeddings)}
        return {name: ours for name, ours in known.items() if name in self._file}

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the embedding: that of all weights that are not quantised."""
        return self.entry(f"model.{EMBEDDING}").dtype

    def entry(self, name: str) -> Entry:
        """How a tensor is stored."""
        name = self._originals.get(name, name)
        return self.shards[self._file[name]].entries[name]

    def file(self, name: str) -> Path:
        """In which file a tensor is."""
        name = self._originals.get(name, name)
        return self.shards[self._file[name]].path

    def raw(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """Read a tensor, or some rows of it, as it is stored; a copy that was left out is read from what it repeats."""
        name = self._originals.get(name, name)
        return self.shards[self._file[name]].read(name, rows)

    def finite(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """Read it as it is stored; what is no number is an error."""
        tensor = self.raw(name, rows)
        if not is_finite(tensor):
            raise CheckpointError(
                f"{self.file(name)}: {name} holds numbers that are not finite; such a model cannot compute, copy or"
                " write it again"
            )
        return tensor

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """Read it as finite numbers: FP8 comes as float32."""
        return self._dequantised(name, rows) if self.is_quantised(name) else self.finite(name, rows)

    def lies(self, name: str) -> tuple["Folder", str]:
        """Where a tensor lies: here."""
        return self, name

    def is_quantised(self, name: str) -> bool:
        """Whether a tensor is stored in FP8, with scales beside it."""
        return self.entry(name).dtype == torch.float8_e4m3fn

    def keeps(self, name: str, blocks: tuple[int, int]) -> bool:
        """Whether a tensor is quantised in these very blocks, so that it can be passed on as it is."""
        return self.is_quantised(name) and self.blocks == blocks

    def scale(self, name: str) -> Tensor:
        """The scales of a quantised tensor, float32."""
        return self.finite(name + float8.SUFFIX)

    def _dequantised(self, name: str, rows: tuple[int, int] | None) -> Tensor:
        assert self.blocks, "matched before: quantised weights have blocks"
        first, last = rows or (0, self.entry(name).shape[0])
        height = self.blocks[0]
        start = first - first % height  # scales begin at whole blocks
        scales = self.finite(name + float8.SUFFIX, (start // height, -(-last // height)))
        if not is_finite(scales * float8.LARGEST):
            raise CheckpointError(f"{self.file(name)}: {name}{float8.SUFFIX} holds a scale too large for float32")
        return float8.dequantised(self.finite(name, (start, last)), scales, self.blocks)[first - start :]

    def _beside(self) -> set[str]:
        """Files of weights that nothing names: an adapter, a shard of something else, pickles."""
        return {file.name for kind in ("*.safetensors", *PICKLED) for file in self.path.glob(kind)} - self.shards.keys()

    def _where(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for file, shard in self.shards.items():
            for name in shard.entries:
                if name in found:
                    raise CheckpointError(
                        f"{self.path}: {name} stands in {found[name]} and in {file}; keep one of them"
                    )
                found[name] = file
        return found

    def refuse_other_copies(self) -> None:
        """A tensor that is repeated under another name must be the same there: the model has one of them alone."""
        for copy, ours in self.copies.items():
            original = self._names[Place(ours)]
            for rows in pieces(self.entry(copy).shape):
                if not torch.equal(self.read(copy, rows), self.read(original, rows)):
                    raise CheckpointError(
                        f"{self.file(copy)}: {copy} differs from {original}, of which it is a copy; this model has only"
                        " one of them"
                    )

    def _refuse_other_index(self) -> None:
        """An index must say of each tensor where it is."""
        for name, file in _index(self.path).items():
            if self._file.get(name) != file:
                raise CheckpointError(
                    f"{self.path / INDEX} has {name} in {file}, where it is not; copy the model again"
                )

    def _as_stored(self, config: ModelConfig) -> ModelConfig:
        """Leave out layers of multi-token prediction that are not there at all: transformers writes none."""
        ahead = f"model.layers.{config.num_hidden_layers}."
        if not config.num_nextn_predict_layers or any(name.startswith(ahead) for name in self._file):
            return config
        say_once(f"{self.path} has no layers of multi-token prediction, though config.json says so; read without them")
        return dataclasses.replace(config, num_nextn_predict_layers=0)

    def _matched(self) -> dict[str, Stored]:
        """Hold what there is against what config.json asks for: both sides must be used up."""
        wanted = stored(self.config)
        optional = {*names_of_copies(self.config), *_tied_head(self.config.tie_word_embeddings)}
        quantised = [name for name in wanted if name in self._file and self.is_quantised(name)]
        if quantised and self.blocks is None:
            raise CheckpointError(
                f"{self.file(quantised[0])}: {quantised[0]} is float8_e4m3fn, but config.json has no"
                " quantization_config that says in which blocks"
            )
        scales = {name + float8.SUFFIX for name in quantised}
        unknown = [n for n in self._file if n not in {*wanted, *optional, *scales} and not n.endswith(DERIVED)]
        missing = [n for n in {**wanted, **dict.fromkeys(scales)} if n not in self._file and n not in optional]
        if missing or unknown:
            raise CheckpointError(
                f"{self.path} does not fit its config.json: missing {_some(missing)}; unknown {_some(unknown)};"
                " check that config.json belongs to these weights"
            )
        for name, entry in wanted.items():
            if name in self._file:
                self._fits(name, entry.shape)
        return {name: entry for name, entry in wanted.items() if name not in optional}

    def _fits(self, name: str, shape: Shape) -> None:
        entry = self.entry(name)
        if entry.shape != shape:
            raise CheckpointError(
                f"{self.file(name)}: {name} has shape {entry.shape}, expected {shape} from config.json;"
                " check that config.json belongs to these weights"
            )
        if self.is_quantised(name):
            self._fits_scale(name, shape)
        elif not entry.dtype.is_floating_point or entry.dtype.itemsize == 1:
            raise CheckpointError(
                f"{self.file(name)}: {name} is {str(entry.dtype).removeprefix('torch.')}; expected weights of 16 bits"
                " or more, or FP8 (e4m3) in blocks"
            )

    def _fits_scale(self, name: str, shape: Shape) -> None:
        assert self.blocks, "looked at before"
        scale, expected = self.entry(name + float8.SUFFIX), float8.scale_shape(shape, self.blocks)
        if scale.shape != expected or scale.dtype != torch.float32:
            raise CheckpointError(
                f"{self.file(name)}: {name}{float8.SUFFIX} is {scale.dtype} of shape {scale.shape}, expected float32 of"
                f" shape {expected}"
            )


def is_finite(part: Tensor) -> bool:
    """Whether a tensor is all numbers: the least and the greatest tell, in one pass."""
    if part.dtype == torch.float8_e4m3fn:  # all bits but the sign
        return not (part.contiguous().view(torch.uint8) & 0x7F).eq(0x7F).any()
    return not part.numel() or all(math.isfinite(float(end)) for end in torch.aminmax(part))


def _files(path: Path) -> list[Path]:
    """The files of weights."""
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    names = sorted(set(_index(path).values()))
    for name in names:
        if not (path / name).is_file():
            raise CheckpointError(f"{path / name} is missing, but {INDEX} names it; copy or export the model again")
    if not names:
        raise CheckpointError(_nothing(path))
    return [path / name for name in names]


def _index(path: Path) -> dict[str, str]:
    """Tensor -> file by the index, if there is one; it may name files of this folder alone."""
    index = path / INDEX
    if (path / WEIGHTS).is_file() or not index.is_file():
        return {}
    try:
        found = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        strange = sorted(n for n in found.values() if Path(n).name != n or not n.endswith(".safetensors"))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index} is damaged ({error!r}); copy or export the model again") from None
    if strange:
        raise CheckpointError(f"{index} names {strange[0]!r}: expected safetensors files of this folder")
    return found


def _nothing(path: Path) -> str:
    """Say why a folder holds no weights."""
    if pickled := sorted(file.name for kind in PICKLED for file in path.glob(kind)):
        return (
            f"{path} holds {pickled[0]}: pickled weights run code when they are read and are never opened here; ask for"
            " safetensors"
        )
    if shards := sorted(file.name for file in path.glob("*.safetensors")):
        return f"{path} holds {shards[0]} but no {INDEX}, which says what is where; copy that file too"
    return f"no {WEIGHTS} and no {INDEX} in {path}; expected an exported model"


def _tied_head(tied: bool) -> dict[str, str]:
    """A head that is the embedding may still be repeated in the files."""
    return {"lm_head.weight": EMBEDDING} if tied else {}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(sorted(names)[:LISTED]) or "none") + more
