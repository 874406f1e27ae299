"""Weights on their way to a Hugging Face folder: piece by piece, so that a model of any size passes through.

Each file's header is known before the first number, and every tensor is written where the header says.
"""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from yatsude.checkpoint.folder import INDEX, WEIGHTS, Folder, is_finite
from yatsude.checkpoint.pieces import pieces, together
from yatsude.checkpoint.shard import DTYPES, as_bytes
from yatsude.errors import CheckpointError
from yatsude.model import float8
from yatsude.spec import hf as spec
from yatsude.spec.config import ModelConfig
from yatsude.spec.stored import Shape, stored

__all__ = ["Precision", "Precisions", "Weights", "on_disk", "write", "write_json"]

NAMES = {dtype: name for name, dtype in DTYPES.items()}
FLOAT8_PARTS = (".self_attn.", ".mlp.", ".block_sparse_moe.")
ROUTER = ".gate.weight"


class Weights(Protocol):
    """Where weights come from: a `Folder`, a model in memory, or what is made of them."""

    config: ModelConfig

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """A tensor by its name in files, or some rows of it, as numbers of 16 bits or more."""
        ...

    def lies(self, name: str) -> tuple[Folder, str] | None:
        """In which folder, under which name, a tensor lies just as it is here; none where it is made."""
        ...


class Precisions(Protocol):
    """How each tensor is stored, and the blocks of those in FP8."""

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns that share a scale."""
        ...

    def of(self, name: str, shape: Shape) -> torch.dtype:
        """How one tensor is stored."""
        ...


@dataclasses.dataclass(frozen=True)
class Precision:
    """How weights are stored: `dtype`, and for FP8 the blocks that share a scale."""

    dtype: torch.dtype
    blocks: tuple[int, int] = float8.BLOCKS

    @property
    def is_float8(self) -> bool:
        """Whether the large matrices are quantised."""
        return self.dtype == torch.float8_e4m3fn

    def of(self, name: str, shape: Shape) -> torch.dtype:
        """How one tensor is stored: router biases in float32 always, and in FP8 the matrices of the layers alone."""
        if name.endswith("e_score_correction_bias"):
            return torch.float32
        if not self.is_float8:
            return self.dtype
        quantised = len(shape) == 2 and not name.endswith(ROUTER) and any(part in name for part in FLOAT8_PARTS)
        return torch.float8_e4m3fn if quantised else torch.bfloat16

    @property
    def page(self) -> dict[str, Any]:
        """What config.json says of it."""
        if not self.is_float8:
            return {}
        blocks = list(self.blocks)
        method = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": blocks}
        return {"quantization_config": method}


@dataclasses.dataclass(frozen=True)
class _Output:
    """A tensor to be written."""

    name: str
    shape: Shape
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write(source: Weights, folder: Path, precision: Precision, shard_bytes: int) -> None:
    """Write config.json and the weights into an existing folder, in files of at most `shard_bytes`."""
    dtype = torch.bfloat16 if precision.is_float8 else precision.dtype
    write_json(folder / spec.CONFIG, spec.to_hf(source.config, str(dtype).removeprefix("torch.")) | precision.page)
    if isinstance(source, Folder):
        source.refuse_other_copies()
    shards = _shards(source.config, precision, shard_bytes)
    files: dict[str, str] = {}
    jobs = []
    for number, outputs in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        jobs.append(functools.partial(_write_shard, folder / file, outputs, source, precision))
        files |= dict.fromkeys((output.name for output in outputs), file)
    together(jobs)
    if len(shards) > 1:
        total = sum(output.bytes for outputs in shards for output in outputs)
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": files})


def on_disk(source: Weights, name: str, shape: Shape, precision: Precisions) -> Iterator[tuple[int, Tensor]]:
    """Yield what is stored of a tensor, from the first row to the last: row numbers, and rows in their final form.

    Scales of a quantised tensor come under row -1. What is quantised in the same blocks already passes unchanged.
    """
    dtype = precision.of(name, shape)
    if dtype != torch.float8_e4m3fn:
        for rows in pieces(shape):
            yield rows[0] if rows else 0, source.read(name, rows).to(dtype)
        return
    found = source.lies(name)
    if found and found[0].keeps(found[1], precision.blocks):
        folder, name = found
        for rows in pieces(shape):
            yield rows[0] if rows else 0, folder.raw(name, rows)
        yield -1, folder.scale(name)
        return
    scales: list[Tensor] = []
    for rows in pieces(shape):
        numbers, scale = float8.quantised(source.read(name, rows), precision.blocks)
        scales.append(scale)
        yield rows[0] if rows else 0, numbers
    yield -1, torch.cat(scales)


def write_json(path: Path, page: Mapping[str, Any]) -> None:
    """Write a small page of JSON."""
    path.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _outputs(config: ModelConfig, precision: Precision) -> Iterator[list[_Output]]:
    """Every tensor that is written, with its scales where it has some: they belong into the same file."""
    for name, entry in stored(config).items():
        dtype = precision.of(name, entry.shape)
        group = [_Output(name, entry.shape, dtype)]
        if dtype == torch.float8_e4m3fn:
            shape = float8.scale_shape(entry.shape, precision.blocks)
            group.append(_Output(name + float8.SUFFIX, shape, torch.float32))
        yield group


def _shards(config: ModelConfig, precision: Precision, shard_bytes: int) -> list[list[_Output]]:
    """Outputs by file, in order, none of the files larger than `shard_bytes` unless one tensor alone is."""
    shards: list[list[_Output]] = [[]]
    size = 0
    for group in _outputs(config, precision):
        more = sum(output.bytes for output in group)
        if shards[-1] and size + more > shard_bytes:
            shards.append([])
            size = 0
        shards[-1] += group
        size += more
    return shards


def _write_shard(path: Path, outputs: list[_Output], source: Weights, precision: Precision) -> None:
    header, starts = _header(outputs)
    with path.open("wb") as stream:
        stream.write(header)
        for output in outputs:
            if output.name.endswith(float8.SUFFIX):
                continue  # scales are written with their weight
            row = output.bytes // output.shape[0]
            for first, part in on_disk(source, output.name, output.shape, precision):
                if not is_finite(part):
                    raise CheckpointError(
                        f"{output.name} holds numbers that are not finite in {NAMES[part.dtype]}; export in bfloat16 or"
                        " float32, or an earlier checkpoint"
                    )
                place = starts[output.name + float8.SUFFIX] if first < 0 else starts[output.name] + first * row
                _put(stream, place, part)
        stream.flush()
        os.fsync(stream.fileno())


def _header(outputs: list[_Output]) -> tuple[bytes, dict[str, int]]:
    """The beginning of a file, and where in it each tensor begins; wide numbers first, so that all are aligned."""
    page: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for output in sorted(outputs, key=lambda output: -output.dtype.itemsize):
        offsets = [place, place + output.bytes]
        page[output.name] = {"dtype": NAMES[output.dtype], "shape": list(output.shape), "data_offsets": offsets}
        place = offsets[1]
    text = json.dumps(page, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    starts = {output.name: base + page[output.name]["data_offsets"][0] for output in outputs}
    return len(text).to_bytes(8, "little") + text, starts


def _put(stream: BinaryIO, place: int, part: Tensor) -> None:
    stream.seek(place)
    stream.write(as_bytes(part.contiguous()))
