"""A model in numbers, named as in Hugging Face's `DeepseekV3Config`: a checkpoint's config.json is a ModelConfig.

Source of the layout: DeepSeek-V3 Technical Report, arXiv 2412.19437.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from yatsude.errors import CheckpointError, RecipeError

__all__ = ["ModelConfig", "from_hf", "read", "to_hf"]


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "moe_intermediate_size",
    "num_attention_heads",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "max_position_embeddings",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shapes of a DeepSeek-V3-layout mixture of experts; all sizes are counts of numbers, not bytes."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    """Width of the feed-forward part in the dense layers."""
    moe_intermediate_size: int
    """Width of one expert."""
    num_attention_heads: int
    kv_lora_rank: int
    """Width of the latent that keys and values are made from; with the rotary key it is all that a cache holds."""
    q_lora_rank: int | None = None
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    n_shared_experts: int = 1
    first_k_dense_replace: int = 1
    """How many layers at the bottom are dense."""
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    bos_token_id: int = 0
    eos_token_id: int | tuple[int, ...] = 0
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built, with the number that is wrong."""
        for name in _SIZES:
            size = getattr(self, name)
            if size is not None and size < 1:
                raise RecipeError(f"{name} = {size}: expected at least 1")
        if not 1 <= self.num_experts_per_tok <= self.n_routed_experts:
            raise RecipeError(
                f"num_experts_per_tok = {self.num_experts_per_tok}: expected 1 to {self.n_routed_experts},"
                " the number of routed experts"
            )
        if self.qk_rope_head_dim % 2:
            raise RecipeError(f"qk_rope_head_dim = {self.qk_rope_head_dim}: rotary pairs need an even number")
        if not 0 <= self.first_k_dense_replace <= self.num_hidden_layers:
            raise RecipeError(
                f"first_k_dense_replace = {self.first_k_dense_replace}: expected 0 to {self.num_hidden_layers}"
            )

    @property
    def qk_head_dim(self) -> int:
        """Width of one head's query and key."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def moe_layers(self) -> int:
        """How many layers hold experts."""
        return self.num_hidden_layers - self.first_k_dense_replace

    def is_moe(self, layer: int) -> bool:
        """Whether layer number `layer` (from 0) holds experts."""
        return layer >= self.first_k_dense_replace


_ADAPTER = TypeAdapter(ModelConfig)
_FIXED: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "n_group": 1,
    "topk_group": 1,
    "rope_interleave": True,
    "rope_scaling": None,
    "moe_layer_freq": 1,
    "ep_size": 1,
    "num_nextn_predict_layers": 0,
}


def to_hf(config: ModelConfig, dtype: str = "bfloat16") -> dict[str, Any]:
    """Build the content of config.json, for transformers, vLLM, SGLang and llama.cpp alike."""
    return {
        **_FIXED,
        **_ADAPTER.dump_python(config, mode="json"),
        "num_key_value_heads": config.num_attention_heads,
        "torch_dtype": dtype,
    }


def from_hf(values: Mapping[str, Any]) -> ModelConfig:
    """Read the content of a config.json; whatever this model cannot do is an error that names the field."""
    if values.get("model_type") != "deepseek_v3":
        raise CheckpointError(f"model_type = {values.get('model_type')!r}: expected 'deepseek_v3'")
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    rope = values.get("rope_parameters") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        raise CheckpointError(f"rope_parameters = {rope}: only plain rotary embeddings are supported")
    values = {**values, **({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {})}
    for key, value in values.items():
        if key in _FIXED and key != "architectures" and value != _FIXED[key]:
            raise CheckpointError(f"{key} = {value!r} in config.json is not supported, expected {_FIXED[key]!r}")
    try:
        return _ADAPTER.validate_python({key: values[key] for key in known & values.keys()})
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"config.json: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read(folder: Path) -> ModelConfig:
    """Read `config.json` of a checkpoint folder."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no config.json in {folder}; expected a checkpoint or an exported model") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); write the model again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds {values!r:.40}, expected the settings of a model; write the model again")
    try:
        return from_hf(values)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {str(error).removeprefix('config.json: ')}") from None
