"""Weights in and out of Hugging Face folders (`DeepseekV3ForCausalLM`), tensor by tensor.

A folder holds config.json and either model.safetensors or numbered shards with model.safetensors.index.json. Reading
takes as much memory as the model, and never more than one shard beside it; so does writing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yatsude.checkpoint.deepseek_v3 import Place, places
from yatsude.checkpoint.tensors import reading, save
from yatsude.errors import CheckpointError
from yatsude.model.transformer import Transformer
from yatsude.spec import config as spec
from yatsude.spec.config import ModelConfig

__all__ = ["blank", "load", "on_disk", "write", "write_json"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDING = "model.embed_tokens.weight"
LISTED = 5


def load(folder: Path, dtype: torch.dtype | None = None) -> Transformer:
    """Read a model; every tensor of the folder is used and every parameter filled, or it is an error.

    `dtype` is that of the weights in memory (none: as the embedding is on disk); router biases stay float32.
    """
    config, files = spec.read(folder), _files(folder)
    model = blank(config, dtype or _dtype_on_disk(files))
    missing, unknown = places(model), []
    ours = model.state_dict()
    for path in files:
        with reading(path) as file:
            for name in file.keys():  # noqa: SIM118  (no mapping)
                place = missing.pop(name, None)
                if place is None:
                    unknown.append(name)
                else:
                    _fill(path, name, place.of(ours), file.get_tensor(name))
    if missing or unknown:
        raise CheckpointError(
            f"{folder} does not fit its config.json: missing {_some(list(missing))}; unknown {_some(unknown)};"
            " check that config.json belongs to these weights"
        )
    return model


def blank(config: ModelConfig, dtype: torch.dtype) -> Transformer:
    """Build a model whose weights hold whatever lay in memory, to be filled; router biases and loads are 0."""
    with torch.device("meta"):
        model = Transformer(config)
    model.to(dtype).to_empty(device="cpu")
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    for router in model.routers:
        router.e_score_correction_bias = torch.zeros(config.n_routed_experts)
        router.load = torch.zeros(config.n_routed_experts, dtype=torch.int64)
    return model


def write(model: Transformer, folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    """Write config.json and the weights in `dtype` into an existing folder, in files of at most `shard_bytes`."""
    write_json(folder / "config.json", spec.to_hf(model.config, str(dtype).removeprefix("torch.")))
    ours, stored = model.state_dict(), places(model)
    shards = _shards(stored, ours, dtype, shard_bytes)
    files: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        shard = {name: on_disk(stored[name].of(ours), name, dtype) for name in names}
        save(folder / file, shard)
        files |= dict.fromkeys(names, file)
        total += sum(tensor.nbytes for tensor in shard.values())
    if len(shards) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": files})


def on_disk(tensor: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """Turn a tensor of the model into what is stored: the router's bias keeps float32, all else takes `dtype`."""
    return tensor.detach().cpu().to(torch.float32 if _is_bias(name) else dtype)


def write_json(path: Path, page: Mapping[str, Any]) -> None:
    """Write a small page of JSON."""
    path.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _fill(path: Path, name: str, ours: Tensor, read: Tensor) -> None:
    if ours.shape != read.shape:
        raise CheckpointError(
            f"{path}: {name} has shape {tuple(read.shape)}, expected {tuple(ours.shape)} from config.json;"
            " check that config.json belongs to these weights"
        )
    if not read.is_floating_point() or read.itemsize == 1:
        raise CheckpointError(
            f"{path}: {name} is {read.dtype}; expected weights of 16 bits or more, not quantised ones"
        )
    ours.copy_(read)


def _files(folder: Path) -> list[Path]:
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        raise CheckpointError(f"no {WEIGHTS} and no {INDEX} in {folder}; expected an exported model")
    try:
        names = {Path(name).name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is damaged ({error!r}); copy or export the model again") from None
    for name in sorted(names):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing, but {INDEX} names it; copy or export the model again")
    return [folder / name for name in sorted(names)]


def _dtype_on_disk(files: list[Path]) -> torch.dtype:
    for path in files:
        with reading(path) as file:
            if EMBEDDING in file.keys():  # noqa: SIM118
                return file.get_tensor(EMBEDDING).dtype
    raise CheckpointError(f"{files[0].parent} holds no {EMBEDDING}; expected the weights of a DeepSeek-V3 model")


def _shards(
    stored: Mapping[str, Place], ours: dict[str, Tensor], dtype: torch.dtype, shard_bytes: int
) -> list[list[str]]:
    """Names by file, in order, none of them larger than `shard_bytes` unless one tensor alone is."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, place in stored.items():
        more = place.of(ours).numel() * (4 if _is_bias(name) else dtype.itemsize)
        if shards[-1] and size + more > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += more
    return shards


def _is_bias(name: str) -> bool:
    return name.endswith("e_score_correction_bias")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(sorted(names)[:LISTED]) or "none") + more
