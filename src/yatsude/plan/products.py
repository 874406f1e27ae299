"""The matrix products of each kind of layer, as shapes: rows, inner and outer width.

Shapes are those of one rank: `t` tokens between the products, where the sequence is cut over cp and tp; tensor
parallelism gathers it for the products that it cuts.
"""

import dataclasses
from collections.abc import Iterator

from yatsude.plan.job import Job, tokens
from yatsude.spec.config import ModelConfig
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.pieces import Kind

__all__ = ["Product", "again", "attention_flops", "products"]


@dataclasses.dataclass(frozen=True)
class Product:
    """(rows, inner) x (inner, outer), `groups` times with as many weights, of `rows` in all."""

    rows: float
    inner: float
    outer: float
    groups: int = 1
    eight: bool = True
    """Whether it may run in FP8."""

    @property
    def flops(self) -> float:
        """Two a weight and row."""
        return 2 * self.rows * self.inner * self.outer

    def bytes(self, narrow: int, wide: int = 2) -> float:
        """Read and written once: inputs of `narrow` bytes a number, results of `wide`."""
        width = narrow if self.eight else wide
        read = self.rows * self.inner + self.groups * self.inner * self.outer
        return width * read + wide * self.rows * self.outer


def products(job: Job, layout: ParallelSettings, kind: Kind) -> list[Product]:
    """Products of one micro-batch's forward pass through a piece of this kind."""
    config, t, tp = job.config, tokens(job, layout), layout.tp
    head = Product(t, config.hidden_size, job.classes, eight=False)
    if kind == "embedding":
        return []
    if kind == "head":
        return [head]
    found = list(_latent(config, layout, t) if config.kv_lora_rank else _grouped(config, layout, t))
    if kind == "dense":
        return found + _feed_forward(t * tp, config.hidden_size, config.intermediate_size / tp)
    found += _mixture(job, layout, t)
    if kind == "ahead":
        found += [Product(t, 2 * config.hidden_size, config.hidden_size), head]
    return found


def again(job: Job, layout: ParallelSettings, kind: Kind) -> list[Product]:
    """Those that full recomputation makes a second time: it stops at the last result that somebody needs.

    Nobody needs what dense layers and shared experts give out, nor what a layer that predicts further ahead does around
    its block. Where the backward is split a layer is computed to its end.
    """
    if kind in ("embedding", "head"):
        return []
    found = products(job, layout, "mixture" if kind == "ahead" else kind)
    if layout.splits_backward:
        return found
    return found[:-1] if kind == "dense" or job.config.n_shared_experts else found


def attention_flops(job: Job, layout: ParallelSettings) -> float:
    """Scores and weighted sums of one layer and micro-batch, forward, looking at half of the sequence."""
    config = job.config
    heads = config.num_attention_heads / layout.tp
    queries = tokens(job, layout) * layout.tp
    return 2 * heads * (config.qk_head_dim + config.value_dim) * queries * (job.sequence + 1) / 2


def _latent(config: ModelConfig, layout: ParallelSettings, t: float) -> Iterator[Product]:
    hidden, heads, latent = config.hidden_size, config.num_attention_heads / layout.tp, config.kv_lora_rank
    if config.q_lora_rank is None:
        yield Product(t * layout.tp, hidden, heads * config.qk_head_dim)
    else:
        yield Product(t * layout.tp, hidden, config.q_lora_rank)
        yield Product(t * layout.tp, config.q_lora_rank, heads * config.qk_head_dim)
    yield Product(t * layout.tp, hidden, latent + config.qk_rope_head_dim)
    # context parallelism gathers the latent: each rank expands that of the whole sequence
    yield Product(t * layout.tp * layout.cp, latent, heads * (config.qk_nope_head_dim + config.v_head_dim))
    yield Product(t * layout.tp, heads * config.v_head_dim, hidden)


def _grouped(config: ModelConfig, layout: ParallelSettings, t: float) -> Iterator[Product]:
    heads = (config.num_attention_heads + 2 * config.num_key_value_heads) / layout.tp
    yield Product(t * layout.tp, config.hidden_size, heads * config.head_dim)
    yield Product(t * layout.tp, config.num_attention_heads * config.head_dim / layout.tp, config.hidden_size)


def _feed_forward(rows: float, hidden: int, width: float, groups: int = 1) -> list[Product]:
    return [Product(rows, hidden, 2 * width, groups), Product(rows, width, hidden, groups)]


def _mixture(job: Job, layout: ParallelSettings, t: float) -> list[Product]:
    config = job.config
    rows = t * config.num_experts_per_tok * (job.imbalance if layout.ep > 1 else 1.0)
    local = max(config.n_routed_experts // layout.ep, 1)
    found = [Product(t, config.hidden_size, config.n_routed_experts, eight=False)]
    found += [
        dataclasses.replace(product, groups=local)
        for product in _feed_forward(rows, config.hidden_size, config.moe_intermediate_size)
    ]
    if config.n_shared_experts:
        found += _feed_forward(t, config.hidden_size, config.moe_intermediate_size * config.n_shared_experts)
    return found
