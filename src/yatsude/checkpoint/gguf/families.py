"""How each family of models goes into GGUF: what llama.cpp assumes, what it asks for, names, and turned tensors.

Sources: the GGUF specification, and llama.cpp's loaders of the architectures `deepseek2`, `llama`, `qwen3`, `qwen3moe`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from yatsude.errors import CheckpointError

__all__ = ["FAMILIES", "Change", "Config", "Family"]

Config = Mapping[str, Any]
Change = Callable[[Tensor], Tensor]
Names = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Family:
    """One way to build a layer, by functions of config.json."""

    architecture: str
    check: Callable[[Config], None]
    """Raises CheckpointError for what llama.cpp would compute in another way."""
    metadata: Callable[[Config], dict[str, Any]]
    layer: Callable[[Config, int], list[tuple[str, str]]]
    """Pairs of names below a layer: in the folder, with * for the number of an expert, and in the file."""
    experts: Callable[[Config], int]
    changes: Callable[[Config], dict[str, Change]]
    """Tensors that lie otherwise in the file, by their name there."""


def _rope(config: Config) -> dict[str, Any]:
    """Rotary settings: a type, and what the type needs."""
    return {"rope_type": "default", **(config["rope_scaling"] or {})}


def _expect(config: Config, **wanted: Any) -> None:
    """Raise CheckpointError if a field is not what llama.cpp's code assumes."""
    for key, value in wanted.items():
        if config[key] != value:
            raise CheckpointError(f"{key} = {config[key]!r} cannot go into GGUF; llama.cpp assumes {value!r} here")


def _weights(*names: Names) -> list[tuple[str, str]]:
    return [(f"{disk}.weight", f"{file}.weight") for table in names for disk, file in table.items()]


def _projections(disk: str, file: str, parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")) -> Names:
    """Names of a feed-forward part's three matrices; {} stands for the part."""
    return {disk.format(part): file.format(ours) for part, ours in zip(parts, ("gate", "up", "down"), strict=True)}


NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
DENSE = _projections("mlp.{}", "ffn_{}")
SHARED = _projections("mlp.shared_experts.{}", "ffn_{}_shexp")
ROUTED = {"mlp.gate": "ffn_gate_inp", **_projections("mlp.experts.*.{}", "ffn_{}_exps")}
ROUTED_MIXTRAL = {
    "block_sparse_moe.gate": "ffn_gate_inp",
    **_projections("block_sparse_moe.experts.*.{}", "ffn_{}_exps", ("w1", "w3", "w2")),
}
HEADS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
LATENT = {
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_k_b",
    "self_attn.o_proj": "attn_output",
}
QUERY = {"self_attn.q_proj": "attn_q"}
LATENT_QUERY = {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
}


# DeepSeek-V3: latent attention, dense layers at the bottom, then routed and shared experts

SIGMOID = 2
"""llama.cpp's number for experts that are scored by a sigmoid each."""


def _deepseek_check(config: Config) -> None:
    # its one eps is that of the latents' norms too, which the layout has at 1e-6
    _expect(config, rope_interleave=True, rms_norm_eps=1e-6)
    layers, queries = config["num_hidden_layers"], config["q_lora_rank"]
    if queries and (layers in (26, 27) or (layers == 48 and config["vocab_size"] == 128256)):
        raise CheckpointError(
            f"{layers} layers with q_lora_rank = {queries} cannot go into GGUF: llama.cpp takes every model of this"
            " depth for a lite one, without q_lora_rank; only one layer more or fewer, or no q_lora_rank, would load"
        )
    if config["first_k_dense_replace"] < layers and not config["n_shared_experts"]:
        raise CheckpointError("n_shared_experts = 0 cannot go into GGUF; llama.cpp's deepseek2 has a shared expert")


def _deepseek_metadata(config: Config) -> dict[str, Any]:
    rotary, latent = config["qk_rope_head_dim"], config["kv_lora_rank"]
    return {
        # the cache has one head: latent and rotary key together are its key, the latent is its value
        "attention.head_count_kv": 1,
        "attention.key_length": latent + rotary,
        "attention.value_length": latent,
        "attention.key_length_mla": config["qk_nope_head_dim"] + rotary,
        "attention.value_length_mla": config["v_head_dim"],
        "attention.kv_lora_rank": latent,
        "attention.q_lora_rank": config["q_lora_rank"] or 0,
        "rope.dimension_count": rotary,
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
        "expert_gating_func": SIGMOID,
        "expert_weights_scale": float(config["routed_scaling_factor"]),
        "expert_weights_norm": bool(config["norm_topk_prob"]),
        **_deepseek_yarn(config),
    }


def _deepseek_yarn(config: Config) -> dict[str, Any]:
    """Longer contexts by YaRN (arXiv 2309.00071); for DeepSeek's two factors on it llama.cpp has only one."""
    page = _rope(config)
    if page["rope_type"] == "default":
        return {}
    mscale = page.get("mscale_all_dim")
    plain = page["rope_type"] == "yarn" and "attention_factor" not in page
    if not plain or not mscale or page.get("mscale") != mscale:
        raise CheckpointError(
            f"rotary settings {page} cannot go into GGUF; llama.cpp's deepseek2 takes 'yarn' with mscale and"
            " mscale_all_dim alike and above 0 and no attention_factor, or none"
        )
    return {**_yarn(page), "rope.scaling.yarn_log_multiplier": 0.1 * mscale}


def _yarn(page: Mapping[str, Any]) -> dict[str, Any]:
    _expect(page, truncate=True, beta_fast=32.0, beta_slow=1.0)  # in the file, but llama.cpp takes its own
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(page["factor"]),
        "rope.scaling.original_context_length": page["original_max_position_embeddings"],
        "rope.scaling.yarn_beta_fast": float(page["beta_fast"]),
        "rope.scaling.yarn_beta_slow": float(page["beta_slow"]),
    }


def _deepseek_layer(config: Config, number: int) -> list[tuple[str, str]]:
    names = _weights(NORMS, LATENT_QUERY if config["q_lora_rank"] else QUERY, LATENT)
    names.append(("self_attn.kv_b_proj.weight", "attn_v_b.weight"))  # one tensor in the folder, two in the file
    if number < config["first_k_dense_replace"]:
        return [*names, *_weights(DENSE)]
    return [*names, ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias"), *_weights(ROUTED, SHARED)]


def _deepseek_changes(config: Config) -> dict[str, Change]:
    """What makes keys and values of the latent, apart and by head: (heads, latent, key), (heads, value, latent)."""
    heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]

    def key(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (heads, -1))[:, :nope].transpose(1, 2)

    def value(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (heads, -1))[:, nope:]

    return {"attn_k_b.weight": key, "attn_v_b.weight": value}


# Heads of their own: Llama, Mistral, Mixtral, Qwen 3


def _heads_check(config: Config) -> None:
    _expect({"attention_bias": False, **config}, attention_bias=False)
    if config.get("sliding_window"):
        _expect(config, sliding_window=config["max_position_embeddings"])


def _qwen_moe_check(config: Config) -> None:
    _heads_check(config)
    _expect(config, norm_topk_prob=True, mlp_only_layers=[])


def _heads_metadata(config: Config) -> dict[str, Any]:
    page, width = _rope(config), config["head_dim"]
    if page["rope_type"] not in ("default", "yarn") or page.get("mscale") or page.get("attention_factor"):
        raise CheckpointError(f"rotary settings {page} cannot go into GGUF yet; expected none, or plain 'yarn'")
    return {
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": width,
        **({} if page["rope_type"] == "default" else _yarn(page)),
    }


def _mixtral_metadata(config: Config) -> dict[str, Any]:
    return {
        **_heads_metadata(config),
        "expert_count": config["num_local_experts"],
        "expert_used_count": config["num_experts_per_tok"],
    }


def _qwen_moe_metadata(config: Config) -> dict[str, Any]:
    return {
        **_heads_metadata(config),
        "expert_count": config["num_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
    }


def _interleaved(config: Config) -> dict[str, Change]:
    """Rows of queries and keys by rotary pair: the folder turns row i with row i + width / 2, the file with i + 1."""
    pair = (2, config["head_dim"] // 2)

    def turn(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, *pair)).transpose(1, 2).flatten(0, 2)

    return {"attn_q.weight": turn, "attn_k.weight": turn}


def _none(config: Config) -> int:
    return 0


def _as_they_are(config: Config) -> dict[str, Change]:
    return {}


def _layers_of(*names: Names) -> Callable[[Config, int], list[tuple[str, str]]]:
    """Every layer has the same names."""
    return lambda config, number: _weights(*names)


_LLAMA = Family("llama", _heads_check, _heads_metadata, _layers_of(NORMS, HEADS, DENSE), _none, _interleaved)

FAMILIES = {
    "deepseek_v3": Family(
        "deepseek2",
        _deepseek_check,
        _deepseek_metadata,
        _deepseek_layer,
        lambda config: config["n_routed_experts"],
        _deepseek_changes,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": Family(
        "llama",
        _heads_check,
        _mixtral_metadata,
        _layers_of(NORMS, HEADS, ROUTED_MIXTRAL),
        lambda config: config["num_local_experts"],
        _interleaved,
    ),
    "qwen3": Family(
        "qwen3", _heads_check, _heads_metadata, _layers_of(NORMS, HEADS, HEAD_NORMS, DENSE), _none, _as_they_are
    ),
    "qwen3_moe": Family(
        "qwen3moe",
        _qwen_moe_check,
        _qwen_moe_metadata,
        _layers_of(NORMS, HEADS, HEAD_NORMS, ROUTED),
        lambda config: config["num_experts"],
        _as_they_are,
    ),
}
"""model_type of config.json -> family."""
