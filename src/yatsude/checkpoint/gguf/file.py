"""A Hugging Face folder as one GGUF file, the format of llama.cpp, read again before it counts as written.

The weights go through memory one tensor of the file at a time; the largest are the experts of one layer, stacked.
"""

import dataclasses
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as Type
from torch import Tensor

from yatsude.checkpoint.bases import front_matter
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.gguf.layout import Layout, Target, layout
from yatsude.checkpoint.gguf.vocabulary import vocabulary
from yatsude.errors import CheckpointError
from yatsude.files import new_file
from yatsude.progress import bar, say
from yatsude.spec import hf as spec

__all__ = ["Figures", "Precision", "write"]

Precision = Literal["f32", "bf16", "q8_0"]
Bytes = npt.NDArray[np.uint8]

_FILE_TYPE: dict[Precision, tuple[Kind, int]] = {"f32": (Kind.F32, 0), "bf16": (Kind.BF16, 32), "q8_0": (Kind.Q8_0, 7)}
"""Precision -> that of the matrices, and llama.cpp's number for the whole file."""
_BLOCK = 32
"""q8_0 stores so many numbers of a row with one scale."""
_TYPES = {bool: Type.BOOL, int: Type.UINT32, float: Type.FLOAT32, str: Type.STRING, list: Type.ARRAY}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """What was written, and how it differs from the folder."""

    tensors: int
    """Tensors of the file, all of them compared."""
    sources: int
    """Tensors of the folder they were made of."""
    parameters: int
    file_bytes: int
    largest_error: float
    """Largest absolute difference of a stored number from the folder's, which rounding explains."""
    wide: int
    """Matrices that stay in bfloat16 because their rows do not divide into blocks of q8_0."""


def write(folder: Path, path: Path, precision: Precision = "bf16") -> Figures:
    """Write the model of `folder` to `path`; nothing is there until the file was read again and compared.

    Vectors and routers are always float32. Raises CheckpointError for a model that llama.cpp would not compute as
    transformers does, for a folder that is not whole, and for a file that is not what was meant.
    """
    source = Folder(folder)
    config = spec.to_hf(source.config)
    plan = layout(config)
    entries = {**_general(folder, path, precision), **plan.metadata, **vocabulary(folder, config)}
    _all_used(source, plan.targets)
    with new_file(path, replace=False) as draft:
        stored = [_Stored.of(target, source, precision) for target in plan.targets]
        _write(draft, plan, entries, stored, source)
        return _compare(draft, plan, entries, stored, source)


def _all_used(source: Folder, targets: list[Target]) -> None:
    """Every tensor of the folder goes into the file, but those of multi-token prediction."""
    used = {name for target in targets for name in target.sources}
    left = [name for name in source.tensors if name not in used]
    if unknown := [name for name in left if not source.tensors[name].place.tensor.startswith("mtp.")]:
        raise CheckpointError(f"{source.path}: no place in GGUF for {unknown[0]}; export it to a folder instead")
    if left:
        say(f"{len(left)} tensors of multi-token prediction are left out; llama.cpp decodes without them")


def _parts(source: Folder, target: Target) -> Iterator[Tensor]:
    """Read what a tensor of the file is made of, one after the other, changed to how it lies there."""
    for name in target.sources:
        tensor = source.read(name)
        yield target.change(tensor) if target.change else tensor


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A tensor of the file with its shape and number format."""

    target: Target
    shape: tuple[int, ...]
    kind: Kind
    precision: Precision

    @classmethod
    def of(cls, target: Target, source: Folder, precision: Precision) -> "_Stored":
        """Shape and format follow from those on disk."""
        shapes = {source.entry(name).shape for name in target.sources}
        if len(shapes) > 1:
            raise CheckpointError(f"the experts of {target.name} have shapes {sorted(shapes)}; expected one for all")
        try:
            one = torch.empty(shapes.pop(), device="meta")
            shape = tuple((target.change(one) if target.change else one).shape)
        except RuntimeError as error:
            raise CheckpointError(f"{target.sources[0]} does not fit config.json ({error})") from None
        stacked = (len(target.sources), *shape) if "_exps." in target.name else shape
        return cls(target, stacked, _kind(target.name, stacked, precision), precision)

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes it takes in the file."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return self.numbers // block * size

    @property
    def is_wide(self) -> bool:
        """Whether it was meant to be q8_0 and could not."""
        return self.precision == "q8_0" and self.kind is Kind.BF16


def _kind(name: str, shape: tuple[int, ...], precision: Precision) -> Kind:
    """Number format of a tensor: what is small or decides where a token goes stays exact."""
    kind = _FILE_TYPE[precision][0]
    if len(shape) == 1 or name.endswith("ffn_gate_inp.weight"):
        return Kind.F32
    return Kind.BF16 if kind is Kind.Q8_0 and shape[-1] % _BLOCK else kind


def _encoded(tensor: Tensor, kind: Kind) -> Bytes:
    """Bytes of a tensor as the file holds them."""
    if kind is Kind.Q8_0:
        return gguf.quantize(tensor.float().contiguous().numpy(), kind).reshape(-1)
    dtype = torch.bfloat16 if kind is Kind.BF16 else torch.float32
    return tensor.to(dtype).contiguous().flatten().view(torch.uint8).numpy()


def _write(draft: Path, plan: Layout, entries: dict[str, Any], stored: list[_Stored], source: Folder) -> None:
    writer = gguf.GGUFWriter(draft, plan.architecture)
    try:
        for key, value in entries.items():
            writer.add_key_value(key, value, _TYPES[type(value)])
        for one in stored:
            writer.add_tensor_info(one.target.name, one.shape, np.dtype(np.float32), one.nbytes, raw_dtype=one.kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with bar("writing", sum(one.nbytes for one in stored) / 1e6, "MB") as progress:
            for one in stored:
                writer.write_tensor_data(_joined(one, source))
                progress.advance(one.nbytes / 1e6)
    except OSError as error:  # numpy says how much went, and not why
        raise error if error.errno else OSError(errno.ENOSPC, str(error)) from None
    finally:
        writer.close()


def _joined(one: _Stored, source: Folder) -> Bytes:
    data = np.empty(one.nbytes, np.uint8)
    at = 0
    for part in _parts(source, one.target):
        piece = _encoded(part, one.kind)
        data[at : at + len(piece)] = piece
        at += len(piece)
    return data


def _compare(draft: Path, plan: Layout, entries: dict[str, Any], stored: list[_Stored], source: Folder) -> Figures:
    """Read the file again and hold it against the folder; any difference that rounding does not explain is an error."""
    reader = gguf.GGUFReader(draft)
    _compare_entries(reader, {"general.architecture": plan.architecture, **entries})
    listed = [(tensor.name, tuple(tensor.shape.tolist()[::-1]), tensor.tensor_type) for tensor in reader.tensors]
    if listed != [(one.target.name, one.shape, one.kind) for one in stored]:
        raise CheckpointError(f"{draft} lists other tensors than were written; write it again")
    with bar("comparing", draft.stat().st_size / 1e6, "MB") as progress:
        worst = 0.0
        for one, tensor in zip(stored, reader.tensors, strict=True):
            worst = max(worst, _error(one, tensor.data.reshape(-1).view(np.uint8), source))
            progress.advance(one.nbytes / 1e6)
    return Figures(
        tensors=len(stored),
        sources=len({name for one in stored for name in one.target.sources}),
        parameters=sum(one.numbers for one in stored),
        file_bytes=draft.stat().st_size,
        largest_error=worst,
        wide=sum(one.is_wide for one in stored),
    )


def _compare_entries(reader: gguf.GGUFReader, entries: dict[str, Any]) -> None:
    for key, value in entries.items():
        field = reader.get_field(key)
        found = field.contents() if field else None
        if found != (float(np.float32(value)) if isinstance(value, float) else value):
            raise CheckpointError(f"the file holds {key} = {found!r:.60}, expected {value!r:.60}; write it again")


def _error(one: _Stored, data: Bytes, source: Folder) -> float:
    """Largest difference of a stored tensor from the folder's."""
    worst, at = 0.0, 0
    for part in _parts(source, one.target):
        piece = data[at : (at := at + one.nbytes // len(one.target.sources))]
        exact = part.float()
        if one.kind is Kind.Q8_0:
            gap = (torch.from_numpy(gguf.dequantize(piece, one.kind)).reshape(exact.shape) - exact).abs()
            fits = bool((gap.reshape(-1, _BLOCK) <= _allowed(exact)).all())
        else:
            fits = np.array_equal(piece, _encoded(part, one.kind))
            gap = (exact.bfloat16().float() if one.kind is Kind.BF16 else exact) - exact
        if not fits or not exact.isfinite().all():
            raise CheckpointError(f"{one.target.name} is not in the file as in {source.path}; check the weights")
        worst = max(worst, gap.abs().max().item())
    return worst


def _allowed(exact: Tensor) -> Tensor:
    """Bound on the error of q8_0 in each block: half a step, and the step's own rounding to float16, 127 times."""
    step = exact.reshape(-1, _BLOCK).abs().amax(1, keepdim=True) / 127
    return step * (0.5 + 127 * 2.0**-11) * (1 + 1e-5) + 127 * 2.0**-25


def _general(folder: Path, path: Path, precision: Precision) -> dict[str, Any]:
    """What the file says of itself, with the licence that the folder's card names."""
    licence = front_matter(folder).get("license")
    return {
        "general.type": "model",
        "general.name": path.stem,
        **({"general.license": licence} if licence else {}),
        "general.file_type": _FILE_TYPE[precision][1],
        "general.quantization_version": 2,
    }
