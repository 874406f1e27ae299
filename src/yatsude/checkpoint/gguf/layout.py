"""A model as llama.cpp sees it: metadata, and which tensors of the folder become which of the file.

in the folder                                                  in the file
model.embed_tokens.weight                                  ->  token_embd.weight
model.layers.3.self_attn.q_proj.weight                     ->  blk.3.attn_q.weight
model.layers.3.self_attn.kv_b_proj.weight                  ->  blk.3.attn_k_b.weight, blk.3.attn_v_b.weight
model.layers.3.mlp.experts.0.up_proj.weight, .1., .2. …    ->  blk.3.ffn_up_exps.weight, stacked [experts, out, in]
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from yatsude.checkpoint.gguf.families import FAMILIES, Change, Config, Family
from yatsude.errors import CheckpointError

__all__ = ["Layout", "Target", "layout"]


@dataclasses.dataclass(frozen=True)
class Target:
    """A tensor of the file: the tensors of the folder it is made of (several are stacked), and how each is changed."""

    name: str
    sources: tuple[str, ...]
    change: Change | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """All of a model but its numbers and its vocabulary."""

    architecture: str
    metadata: dict[str, Any]
    """Keys with the architecture in front, as the file has them."""
    targets: list[Target]


def layout(config: Config) -> Layout:
    """Lay out a model by its config.json; what llama.cpp would compute in another way is an error."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(f"model_type = {kind!r} cannot go into GGUF; expected one of {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    family.check(config)
    metadata = {**_common(config), **family.metadata(config)}
    layers = [_layer(family, config, number) for number in range(config["num_hidden_layers"])]
    named = {f"{family.architecture}.{key}": value for key, value in metadata.items()}
    return Layout(family.architecture, named, [*_ends(config), *(target for layer in layers for target in layer)])


def _common(config: Config) -> dict[str, Any]:
    return {
        "vocab_size": config["vocab_size"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(config["rope_theta"]),
    }


def _ends(config: Config) -> Iterator[Target]:
    """What lies before and behind the layers."""
    yield Target("token_embd.weight", ("model.embed_tokens.weight",))
    yield Target("output_norm.weight", ("model.norm.weight",))
    if not config["tie_word_embeddings"]:
        yield Target("output.weight", ("lm_head.weight",))


def _layer(family: Family, config: Config, number: int) -> list[Target]:
    experts, changes = family.experts(config), family.changes(config)
    targets = []
    for disk, file in family.layer(config, number):
        source = f"model.layers.{number}.{disk}"
        sources = [source.replace("*", str(expert)) for expert in range(experts)] if "*" in disk else [source]
        targets.append(Target(f"blk.{number}.{file}", tuple(sources), changes.get(file)))
    return targets
