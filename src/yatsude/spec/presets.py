"""Named model sizes, as data.

Every small preset has 8 routed experts, 2 of them a token, and 1 shared expert; each is about twice the one before,
`pico` aside, which is for tests. `700b` is the shape of DeepSeek-V3 (arXiv 2412.19437, table of section 4.2) and of
Rakuten AI 3.0 that was trained from it: 256 routed experts, 8 a token, 1 shared.
"""

import dataclasses
from types import MappingProxyType
from typing import Any

from yatsude.errors import RecipeError, nearest
from yatsude.spec.chat import END, PAD, SPECIAL_TOKENS, TEXT
from yatsude.spec.config import ModelConfig
from yatsude.spec.rope_scaling import RopeScaling

__all__ = ["LADDER", "PRESETS", "preset"]

_IDS: dict[str, Any] = {
    "bos_token_id": SPECIAL_TOKENS.index(TEXT),
    "eos_token_id": (SPECIAL_TOKENS.index(TEXT), SPECIAL_TOKENS.index(END)),
    "pad_token_id": SPECIAL_TOKENS.index(PAD),
}

# name: vocabulary, hidden, layers, dense width, expert width, heads, latent, key without and with rotation, value
_SIZES = {
    "pico": (512, 32, 2, 64, 32, 2, 16, 16, 8, 16),
    "nano": (8192, 192, 3, 384, 128, 4, 48, 16, 16, 48),
    "micro": (8192, 256, 4, 768, 200, 4, 64, 16, 16, 64),
    "tiny": (8192, 320, 6, 960, 256, 5, 80, 32, 32, 64),
    "mini": (8192, 384, 8, 1024, 352, 6, 96, 32, 32, 64),
    "little": (16384, 512, 10, 1536, 512, 8, 128, 32, 32, 64),
    "small": (16384, 768, 12, 2048, 704, 12, 192, 32, 32, 64),
    "medium": (32768, 1024, 16, 3072, 960, 16, 256, 32, 32, 64),
    "base": (32768, 1536, 18, 4096, 1280, 16, 384, 64, 32, 96),
}


def _small(
    vocab: int, hidden: int, layers: int, dense: int, expert: int, heads: int, latent: int, nope: int, rope: int, v: int
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=dense,
        moe_intermediate_size=expert,
        num_attention_heads=heads,
        kv_lora_rank=latent,
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rope,
        v_head_dim=v,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_shared_experts=1,
        first_k_dense_replace=1,
        **_IDS,
    )


_700B = ModelConfig(
    vocab_size=129280,
    hidden_size=7168,
    num_hidden_layers=61,
    intermediate_size=18432,
    moe_intermediate_size=2048,
    num_attention_heads=128,
    kv_lora_rank=512,
    q_lora_rank=1536,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    n_routed_experts=256,
    num_experts_per_tok=8,
    n_shared_experts=1,
    first_k_dense_replace=3,
    routed_scaling_factor=2.5,
    n_group=8,
    topk_group=4,
    num_nextn_predict_layers=1,
    max_position_embeddings=163840,
    rope_scaling=RopeScaling(
        rope_type="yarn",
        factor=40.0,
        original_max_position_embeddings=4096,
        mscale=1.0,
        mscale_all_dim=1.0,
    ),
    bos_token_id=0,
    eos_token_id=1,
)

PRESETS = MappingProxyType({**{name: _small(*sizes) for name, sizes in _SIZES.items()}, "700b": _700B})
"""Name -> model, from the smallest to the largest."""

LADDER = tuple(name for name in _SIZES if name != "pico")
"""The presets that a small machine may choose from, from the smallest to the largest."""


def preset(name: str, **changes: Any) -> ModelConfig:
    """Look a preset up by name; `changes` replace single fields.

    >>> preset("tiny", vocab_size=4096).vocab_size
    4096
    """
    if name not in PRESETS:
        raise RecipeError(f"unknown preset '{name}'{nearest(name, PRESETS)}")
    known = [field.name for field in dataclasses.fields(ModelConfig)]
    for key in changes:
        if key not in known:
            raise RecipeError(f"unknown model field '{key}'{nearest(key, known)}")
    return dataclasses.replace(PRESETS[name], **changes)
