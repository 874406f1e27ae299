"""Which model a recipe wants: a preset, and single fields of it by hand."""

import dataclasses
from typing import Literal

from yatsude.spec.config import ModelConfig
from yatsude.spec.layout import in_layout, refuse_other_layouts
from yatsude.spec.presets import preset
from yatsude.spec.rope_scaling import RopeScaling

__all__ = ["ModelSettings", "Precision", "resolve"]

Precision = Literal["auto", "bf16", "fp32"]
"""Of the products, in training and in use; `auto` measures which one is faster."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A preset by name; every other field, where given, takes the place of the preset's."""

    preset: str = "micro"
    model_type: str | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    intermediate_size: int | None = None
    moe_intermediate_size: int | None = None
    num_attention_heads: int | None = None
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    qk_nope_head_dim: int | None = None
    qk_rope_head_dim: int | None = None
    v_head_dim: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    qk_norm: bool | None = None
    attention_bias: bool | None = None
    partial_rotary_factor: float | None = None
    n_routed_experts: int | None = None
    num_experts_per_tok: int | None = None
    n_shared_experts: int | None = None
    first_k_dense_replace: int | None = None
    norm_topk_prob: bool | None = None
    scoring_func: Literal["sigmoid", "softmax"] | None = None
    routed_scaling_factor: float | None = None
    n_group: int | None = None
    topk_group: int | None = None
    num_nextn_predict_layers: int | None = None
    tie_word_embeddings: bool | None = None
    max_position_embeddings: int | None = None
    rope_theta: float | None = None
    rope_scaling: RopeScaling | None = None
    rope_interleave: bool | None = None
    rms_norm_eps: float | None = None
    initializer_range: float | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown preset and a shape that cannot be built."""
        resolve(self)


def resolve(settings: ModelSettings, vocab_size: int | None = None) -> ModelConfig:
    """Shape of the model that `settings` describe, over a tokenizer's vocabulary (none: the preset's)."""
    fields = [field.name for field in dataclasses.fields(settings)]
    changes = {name: getattr(settings, name) for name in fields if getattr(settings, name) is not None}
    if vocab_size is not None:
        changes["vocab_size"] = vocab_size
    base, model_type = preset(changes.pop("preset")), changes.pop("model_type", None)
    config = in_layout(base, model_type, **changes) if model_type else dataclasses.replace(base, **changes)
    refuse_other_layouts(config)
    return config
