"""What a model weighs and what a token costs: parameters, FLOPs and bytes, exact and without torch.

"Active" are the parameters that one token is multiplied by. The input embedding is not among them (a token reads one
row of it), unless it is tied to the head; this is how DeepSeek-V3's 671 B total become 37 B active.
"""

import dataclasses
import functools
import math
from collections import Counter
from typing import Literal

from yatsude.spec.config import ModelConfig
from yatsude.spec.stored import EMBEDDING, HEAD, tensors

__all__ = [
    "Counts",
    "Dtype",
    "cache_bytes",
    "count",
    "forward_flops",
    "read_bytes",
    "resident_bytes",
    "training_flops",
]

Dtype = Literal["float64", "float32", "bfloat16", "float16", "float8"]

WIDTH: dict[Dtype, int] = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}
BIAS_BYTES = 4
"""The router's score-correction bias is kept in float32 whatever the weights are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Parameters by part, all layers together. `routed_experts` counts every expert, `active` the chosen ones only."""

    embedding: int
    head: int
    """0 where the embedding serves as head too."""
    attention: int
    dense: int
    """Feed-forward parts of the dense layers."""
    shared_experts: int
    routed_experts: int
    routers: int
    norms: int
    biases: int
    """Score-correction biases: buffers, not parameters, and in no sum below."""
    mtp: int
    """Layers of multi-token prediction: beside the total, as DeepSeek counts them."""
    chosen_share: tuple[int, int]
    """Experts a token, and experts in all."""

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parts.values())

    @property
    def active(self) -> int:
        """Parameters that one token is multiplied by."""
        return sum(self.active_parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """Parameters by part, in the order of a forward pass."""
        names = ("embedding", "attention", "dense", "routers", "routed_experts", "shared_experts", "norms", "head")
        return {name: getattr(self, name) for name in names}

    @property
    def active_parts(self) -> dict[str, int]:
        """As `parts`, what one token is multiplied by."""
        chosen, experts = self.chosen_share
        tied = self.head == 0
        return {
            **self.parts,
            "embedding": 0,
            "routed_experts": self.routed_experts * chosen // max(experts, 1),
            "head": self.embedding if tied else self.head,
        }


@functools.lru_cache(maxsize=64)
def count(config: ModelConfig) -> Counts:
    """Count the parameters of a model; equal to the sum over its modules."""
    sums = Counter[str]()
    for name, shape in tensors(config).items():
        sums[_part(name)] += math.prod(shape)
    return Counts(
        **{name: sums[name] for name in _PARTS},
        chosen_share=(config.num_experts_per_tok, config.n_routed_experts),
    )


def forward_flops(config: ModelConfig, context: int = 0) -> int:
    """Floating-point operations of one token's forward pass that looks at `context` tokens.

    Two a weight of every matrix the token meets, and two a number of each key and value it looks at.
    """
    counts = count(config)
    looked_at = config.num_hidden_layers * config.num_attention_heads * (config.qk_head_dim + config.value_dim)
    return 2 * (counts.active - counts.norms) + 2 * looked_at * context


def training_flops(config: ModelConfig, length: int) -> int:
    """Floating-point operations a token of training on sequences of `length` tokens (backward: twice the forward).

    A token looks at half of its sequence on average.
    """
    return 3 * forward_flops(config, (length + 1) // 2)


def cache_bytes(config: ModelConfig, dtype: Dtype = "bfloat16") -> int:
    """Bytes that a cache keeps for each token: a latent and a rotary key in every layer, or keys and values."""
    return config.num_hidden_layers * sum(config.cache_widths) * WIDTH[dtype]


def resident_bytes(config: ModelConfig, dtype: Dtype = "bfloat16") -> int:
    """Bytes of weights that must lie in memory: all of them, since any expert may be chosen next."""
    counts = count(config)
    return counts.total * WIDTH[dtype] + counts.biases * BIAS_BYTES


def read_bytes(config: ModelConfig, dtype: Dtype = "bfloat16", tokens: int = 1) -> int:
    """Bytes of weights read to compute `tokens` tokens together, for one of them.

    Tokens of a batch share what they read; with tokens that choose evenly and independently, a mixture of E experts
    with K a token reads E · (1 - (1 - K/E)^tokens) of them.
    """
    counts = count(config)
    chosen, experts = counts.chosen_share
    always = counts.active - counts.active_parts["routed_experts"]
    touched = counts.routed_experts * (1 - (1 - chosen / max(experts, 1)) ** tokens)
    rows = 0 if config.tie_word_embeddings else tokens * config.hidden_size
    return round(((always + touched + rows) * WIDTH[dtype] + counts.biases * BIAS_BYTES) / tokens)


_PARTS = {
    "biases": ".e_score_correction_bias",
    "mtp": "mtp.",
    "embedding": EMBEDDING,
    "head": HEAD,
    "norms": "norm.weight",
    "attention": ".self_attn.",
    "routers": ".mlp.gate.",
    "routed_experts": ".mlp.experts.",
    "shared_experts": ".mlp.shared_experts.",
    "dense": ".mlp.",
}
"""Part -> what the names of its tensors hold; the first that fits counts."""


def _part(name: str) -> str:
    return next(part for part, word in _PARTS.items() if word in name)
