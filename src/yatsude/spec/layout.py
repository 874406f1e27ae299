"""Whether a family has words for a model, and how to say a model in another family's."""

import dataclasses
from typing import Any

from yatsude.errors import RecipeError
from yatsude.spec.config import ModelConfig
from yatsude.spec.family import COMMON, Family, family

__all__ = ["in_layout", "refuse_other_layouts"]

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ModelConfig)}


def refuse_other_layouts(config: ModelConfig) -> None:
    """Refuse a model that its family has no words for: what config.json cannot say would be lost."""
    kind = family(config.model_type)
    shared = {key: getattr(config, name) for name, key in kind.keys.items() if key in COMMON}
    for name, value in {**_fixed(kind, config.num_hidden_layers), **shared}.items():
        if getattr(config, name) != value:
            raise RecipeError(
                f"{name} = {getattr(config, name)!r}: the layout {config.model_type} allows {value!r} alone; choose"
                " another model_type"
            )


def in_layout(config: ModelConfig, model_type: str, **changes: Any) -> ModelConfig:
    """Build a model like `config` in another family's layout, with some fields by hand.

    What the family fixes is taken from it; a head keeps its width, and has keys of its own unless told otherwise.
    """
    kind = family(model_type)
    fields: dict[str, Any] = _fixed(kind, config.num_hidden_layers)
    if config.kv_lora_rank and "head_dim" in kind.fields:
        fields |= {"head_dim": config.qk_head_dim, "num_key_value_heads": config.num_attention_heads}
    if "kv_lora_rank" in kind.fields and not config.kv_lora_rank:
        raise RecipeError(f"model_type = '{model_type}': its attention is latent; start from a model with kv_lora_rank")
    fields |= changes
    fields |= {key: fields.get(name, getattr(config, name)) for name, key in kind.keys.items() if key in COMMON}
    return dataclasses.replace(config, model_type=model_type, **fields)


def _fixed(kind: Family, layers: int) -> dict[str, Any]:
    """What a family does not leave open: its own choices, and defaults of all that it has no words for."""
    free = {*COMMON, *kind.fields, "model_type", "rope_scaling"}
    fixed = {name: default for name, default in _DEFAULTS.items() if name not in free} | dict(kind.fixed)
    return fixed | ({"first_k_dense_replace": layers} if kind.dense else {})
