"""What llama.cpp wants to know of a model, and how it names its tensors.

in the folder                                                  in the file
model.embed_tokens.weight                                  ->  token_embd.weight
model.layers.3.self_attn.q_proj.weight                     ->  blk.3.attn_q.weight
model.layers.3.self_attn.kv_b_proj.weight                  ->  blk.3.attn_k_b.weight, blk.3.attn_v_b.weight
model.layers.3.mlp.experts.0.up_proj.weight, .1., .2. …    ->  blk.3.ffn_up_exps.weight, stacked [experts, out, in]

Sources: the GGUF specification, and the loaders of llama.cpp for the architectures `deepseek2`, `llama` and `qwen3`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from yatsude.errors import CheckpointError

__all__ = ["Layout", "Target", "layout"]

Config = Mapping[str, Any]
Change = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Target:
    """A tensor of the file: the tensors of the folder it is made of (several are stacked), and how each is changed."""

    name: str
    sources: tuple[str, ...]
    change: Change | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """A model as llama.cpp sees it."""

    architecture: str
    metadata: dict[str, Any]
    """Keys with the architecture in front, as the file has them."""
    targets: list[Target]


def layout(config: Config) -> Layout:
    """Lay out a model by its config.json; what llama.cpp would compute in another way is an error."""
    kind = config.get("model_type")
    if kind not in _FAMILIES:
        raise CheckpointError(f"model_type = {kind!r} cannot go into GGUF; expected one of {', '.join(_FAMILIES)}")
    if config.get("quantization_config"):
        raise CheckpointError("the weights are stored quantised (quantization_config); export them in bfloat16 first")
    family = _FAMILIES[kind]
    try:
        family.check(config)
        metadata = {**_common(config), **family.metadata(config)}
        targets = [*_ends(config)]
        for number in range(config["num_hidden_layers"]):
            targets += _layer(family, config, number)
    except KeyError as error:
        raise CheckpointError(f"config.json has no {error}; check that it belongs to these weights") from None
    named = {f"{family.architecture}.{key}": value for key, value in metadata.items()}
    return Layout(family.architecture, named, targets)


def _common(config: Config) -> dict[str, Any]:
    return {
        "vocab_size": config["vocab_size"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(_rope(config)["rope_theta"]),
    }


def _rope(config: Config) -> dict[str, Any]:
    """Rotary settings in the form that config.json has had since transformers 5."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    return {"rope_theta": config.get("rope_theta", 10000.0), **rope, "rope_type": kind}


def _ends(config: Config) -> Iterator[Target]:
    """What lies before and behind the layers."""
    yield Target("token_embd.weight", ("model.embed_tokens.weight",))
    yield Target("output_norm.weight", ("model.norm.weight",))
    if not config.get("tie_word_embeddings", False):
        yield Target("output.weight", ("lm_head.weight",))


def _layer(family: "_Family", config: Config, number: int) -> Iterator[Target]:
    count = family.experts(config)
    changes = family.changes(config)
    for disk, file in family.layer(config, number):
        source = f"model.layers.{number}.{disk}"
        stacked = tuple(source.replace("*", str(expert)) for expert in range(count)) if "*" in disk else (source,)
        yield Target(f"blk.{number}.{file}", stacked, changes.get(file))


@dataclasses.dataclass(frozen=True)
class _Family:
    """One way to build a layer, by functions of config.json."""

    architecture: str
    check: Callable[[Config], None]
    metadata: Callable[[Config], dict[str, Any]]
    layer: Callable[[Config, int], list[tuple[str, str]]]
    """Pairs of names below a layer: in the folder, with * for the number of an expert, and in the file."""
    experts: Callable[[Config], int]
    changes: Callable[[Config], dict[str, Change]]


def _weights(pairs: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"{disk}.weight", f"{file}.weight") for disk, file in pairs.items()]


def _expect(config: Config, **wanted: Any) -> None:
    """Raise CheckpointError if a field is there and not what llama.cpp's code assumes."""
    for key, value in wanted.items():
        if config.get(key, value) not in (value, None):
            raise CheckpointError(f"{key} = {config[key]!r} cannot go into GGUF; llama.cpp assumes {value!r}")


_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_DENSE = {f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")}
_SHARED = {f"mlp.shared_experts.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")}
_ROUTED = {
    "mlp.gate": "ffn_gate_inp",
    **{f"mlp.experts.*.{part}_proj": f"ffn_{part}_exps" for part in ("gate", "up", "down")},
}

# DeepSeek-V3: latent attention, a dense bottom, routed and shared experts

_LATENT = {
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_k_b",
    "self_attn.o_proj": "attn_output",
}
_QUERY = {"self_attn.q_proj": "attn_q"}
_LATENT_QUERY = {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
}
_SIGMOID = 2
"""llama.cpp's number for experts scored by a sigmoid each."""


def _deepseek_check(config: Config) -> None:
    _expect(config, scoring_func="sigmoid", topk_method="noaux_tc", moe_layer_freq=1, attention_bias=False)
    _expect(config, hidden_act="silu", rope_interleave=True)
    layers = config["num_hidden_layers"]
    if config.get("q_lora_rank") and (layers in (26, 27) or (layers == 48 and config["vocab_size"] == 128256)):
        raise CheckpointError(
            f"{layers} layers with q_lora_rank = {config['q_lora_rank']} cannot go into GGUF: llama.cpp takes this depth"
            " for a lite model without q_lora_rank; train one layer more or fewer"
        )
    if config["first_k_dense_replace"] < layers and not config["n_shared_experts"]:
        raise CheckpointError("n_shared_experts = 0 cannot go into GGUF: llama.cpp's deepseek2 needs a shared expert")


def _deepseek_metadata(config: Config) -> dict[str, Any]:
    rope, nope = config["qk_rope_head_dim"], config["qk_nope_head_dim"]
    return {
        # in the cache there is one head: the latent and the rotary key, of which the latent is the value, too
        "attention.head_count_kv": 1,
        "attention.key_length": config["kv_lora_rank"] + rope,
        "attention.value_length": config["kv_lora_rank"],
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": config["v_head_dim"],
        "attention.kv_lora_rank": config["kv_lora_rank"],
        "attention.q_lora_rank": config.get("q_lora_rank") or 0,
        "rope.dimension_count": rope,
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_group_count": config.get("n_group") or 1,
        "expert_group_used_count": config.get("topk_group") or 1,
        "expert_gating_func": _SIGMOID,
        "expert_weights_scale": float(config["routed_scaling_factor"]),
        "expert_weights_norm": bool(config["norm_topk_prob"]),
        **_yarn(config),
    }


def _yarn(config: Config) -> dict[str, Any]:
    """Longer contexts by YaRN (arXiv 2309.00071); llama.cpp has one factor for what DeepSeek calls mscale, twice."""
    rope = _rope(config)
    if rope["rope_type"] == "default":
        return {}
    mscale = rope.get("mscale_all_dim")
    if rope["rope_type"] != "yarn" or not mscale or rope.get("mscale") != mscale:
        raise CheckpointError(
            f"rope scaling {rope} cannot go into GGUF; llama.cpp's deepseek2 expects 'yarn' with mscale = mscale_all_dim"
        )
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(rope["factor"]),
        "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
        "rope.scaling.yarn_beta_fast": float(rope.get("beta_fast") or 32),
        "rope.scaling.yarn_beta_slow": float(rope.get("beta_slow") or 1),
        "rope.scaling.yarn_log_multiplier": 0.1 * mscale,
    }


def _deepseek_layer(config: Config, number: int) -> list[tuple[str, str]]:
    query = _LATENT_QUERY if config.get("q_lora_rank") else _QUERY
    names = _weights({**_NORMS, **query, **_LATENT})
    names.append(("self_attn.kv_b_proj.weight", "attn_v_b.weight"))  # one tensor on disk is two in the file
    if number < config["first_k_dense_replace"]:
        return names + _weights(_DENSE)
    bias = ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias")
    return [*names, bias, *_weights({**_ROUTED, **_SHARED})]


def _deepseek_changes(config: Config) -> dict[str, Change]:
    """Keys and values out of the latent, apart and by head: (heads, latent, key) and (heads, value, latent)."""
    heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]

    def key(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (heads, -1))[:, :nope].transpose(1, 2)

    def value(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (heads, -1))[:, nope:]

    return {"attn_k_b.weight": key, "attn_v_b.weight": value}


_FAMILIES = {
    "deepseek_v3": _Family(
        "deepseek2",
        _deepseek_check,
        _deepseek_metadata,
        _deepseek_layer,
        lambda config: config["n_routed_experts"],
        _deepseek_changes,
    ),
}
"""model_type of config.json -> family."""
