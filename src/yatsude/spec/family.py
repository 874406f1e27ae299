"""What a family of models on Hugging Face is: how its config.json and its tensors are named.

A family is data: one file in `spec/families` each. `spec/hf.py` reads and writes config.json by it, `spec/stored.py`
lists the tensors.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from yatsude.errors import CheckpointError

__all__ = ["COMMON", "FAMILIES", "Family", "family"]

COMMON = (
    "vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads",
    "tie_word_embeddings", "max_position_embeddings", "rope_theta", "rms_norm_eps", "initializer_range",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
"""Fields that every config.json holds, under the same names."""

FAMILIES = ("deepseek_v3", "glm4_moe", "mixtral", "qwen3_moe", "llama", "mistral", "qwen2", "qwen3")
"""`model_type` of every family that can be read and written; the last four are dense."""


def _unchanged(values: dict[str, Any]) -> dict[str, Any]:
    return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One family. "Field" is one of `ModelConfig`, "key" one of config.json."""

    architecture: str
    dense: bool = False
    """Whether it has no experts at all."""
    fields: tuple[str, ...]
    """Fields that its config.json holds beside those that all do."""
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Field -> key, where they differ."""
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields that are the same in every model of the family, and stand in no config.json."""
    says: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keys with the only value that is supported: written, and refused if another is read."""
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keys that a config.json may leave out, with what that means."""
    ignored: tuple[str, ...] = ()
    """Keys that change nothing here."""
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
    """Turns what is read into plain keys, where a family says a thing in its own way."""
    finish: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
    """The same on the way out."""
    tensors: tuple[tuple[str, str], ...] = ()
    """Parts of tensor names, ours and theirs, where they differ from DeepSeek's."""


def family(model_type: object) -> Family:
    """Look a family up by its `model_type`."""
    if model_type not in FAMILIES:
        raise CheckpointError(f"model_type = {model_type!r}: expected one of {', '.join(FAMILIES)}")
    found: Family = importlib.import_module(f"yatsude.spec.families.{model_type}").FAMILY
    return found
