"""What a layer keeps of a micro-batch for its backward pass, and what it moves through memory beside its products.

Counted from the model as it computes on a GPU, in bf16 where nothing else is said: a norm keeps its input scaled and
its result, attention queries, keys, values and result, a gated layer both halves, the opened gate and the product, a
mixture the rows that arrive and those that come back. Latent attention is expanded: every head has its keys and values.
"""

import dataclasses
from collections.abc import Iterator

from yatsude.plan.job import Job, remembered, tokens
from yatsude.spec.config import ModelConfig
from yatsude.spec.parallel import ParallelSettings, Recompute
from yatsude.spec.pieces import Kind

__all__ = ["Activation", "activations", "in_passing", "kept", "moved"]

B = 2
"""Bytes of bf16."""


@dataclasses.dataclass(frozen=True)
class Activation:
    """Bytes of one micro-batch and layer."""

    name: str
    whole: float
    """Kept where nothing is computed again."""
    selective: float = 0.0
    """Kept where all but the results of matrix products is."""
    moved: float = 0.0
    """Read and written in a forward pass by what is no matrix product."""


def activations(job: Job, layout: ParallelSettings, kind: Kind) -> list[Activation]:
    """What a layer of this kind keeps and moves."""
    if kind in ("embedding", "head"):
        return []
    config, t = job.config, tokens(job, layout)
    hidden = B * t * config.hidden_size
    found = [Activation("norms", 4 * hidden, hidden, 10 * hidden)]
    found += _latent(config, layout, t) if config.kv_lora_rank else _grouped(config, layout, t)
    if layout.tp > 1:
        joined = (2 if kind == "dense" else 1) * hidden * layout.tp
        found.append(Activation("gathered over tp", joined, 0.0, joined))
    if kind == "dense":
        found.append(_gated("feed-forward", t, config.intermediate_size))
    else:
        found += _mixture(job, layout, t)
    if kind == "ahead":
        found.append(Activation("joined", 6 * hidden, 2 * hidden, 10 * hidden))
    if job.precision == "fp8":
        found.append(Activation("casts to eight bits", 0.0, 0.0, _cast(job, layout, kind, t)))
    return found


def kept(job: Job, layout: ParallelSettings, kind: Kind, recompute: Recompute) -> float:
    """Bytes that a layer keeps of one micro-batch; with full recomputation its input alone."""
    none, selective, full = _kept(job, layout, kind)
    return {"none": none, "selective": selective, "full": full}[recompute]


@remembered
def _kept(job: Job, layout: ParallelSettings, kind: Kind) -> tuple[float, float, float]:
    parts = activations(job, layout, kind)
    entry = B * tokens(job, layout) * job.config.hidden_size if parts else 0.0
    return sum(part.whole for part in parts), entry + sum(part.selective for part in parts), entry


@remembered
def moved(job: Job, layout: ParallelSettings, kind: Kind) -> float:
    """Bytes read and written in a forward pass of one micro-batch outside of products."""
    found = sum(part.moved for part in activations(job, layout, kind))
    if kind in ("head", "ahead"):  # a softmax over the vocabulary, chunk by chunk, and its gradient in place
        found += 6 * B * tokens(job, layout) * job.classes
    return found


@remembered
def in_passing(job: Job, layout: ParallelSettings, kind: Kind) -> float:
    """Bytes that live while a layer of this kind runs backward, over what it kept: gradients, and rows on their way."""
    config, t = job.config, tokens(job, layout)
    stream = 3 * B * t * config.hidden_size
    heads = B * t * config.num_attention_heads * (2 * config.qk_head_dim + config.value_dim)
    if kind in ("embedding", "head"):
        return stream
    if kind == "dense":
        return stream + max(heads, B * t * 3 * config.intermediate_size)
    rows = B * t * config.num_experts_per_tok * job.imbalance
    return stream + max(heads, rows * (2 * config.hidden_size + 3 * config.moe_intermediate_size))


def _latent(config: ModelConfig, layout: ParallelSettings, t: float) -> Iterator[Activation]:
    heads, query = config.num_attention_heads, config.num_attention_heads * config.qk_head_dim
    latent, low = config.kv_lora_rank + config.qk_rope_head_dim, config.q_lora_rank or 0
    value, plain = heads * config.v_head_dim, heads * config.qk_nope_head_dim
    joined = B * t * layout.tp * (low + latent)  # every tensor parallel rank makes them of all its tokens
    yield Activation("latents", 2 * joined, joined, 4 * joined)
    yield Activation("queries", B * t * query, B * t * query, B * t * 2 * query)
    every = B * t * layout.cp
    yield Activation("keys and values", every * (query + plain + value), every * (plain + value), every * 2 * query)
    yield Activation("attention", B * t * value + 4 * t * heads, B * t * value + 4 * t * heads)


def _grouped(config: ModelConfig, layout: ParallelSettings, t: float) -> Iterator[Activation]:
    query = config.num_attention_heads * config.head_dim
    key = 2 * config.num_key_value_heads * config.head_dim
    yield Activation("queries", B * t * query * (2 if config.qk_norm else 1), B * t * query, B * t * 4 * query)
    every = B * t * layout.cp * key
    yield Activation("keys and values", every, every, 3 * every)
    yield Activation("attention", B * t * query + 4 * t * config.num_attention_heads, B * t * query)


def _gated(name: str, rows: float, width: float) -> Activation:
    return Activation(name, B * rows * 4 * width, B * rows * 2 * width, B * rows * 3 * width)


def _mixture(job: Job, layout: ParallelSettings, t: float) -> Iterator[Activation]:
    config, hidden, travels = job.config, job.config.hidden_size, layout.ep > 1
    rows = t * config.num_experts_per_tok * (job.imbalance if travels else 1.0)
    scores = 4 * t * config.n_routed_experts
    yield Activation("router", 4 * t * hidden + 3 * scores, scores, 8 * t * hidden + 6 * scores)
    # sorted by expert, sent, sorted again where they arrive; and back
    yield Activation(
        "routed rows", 2 * B * rows * hidden, 2 * B * rows * hidden, (9 if travels else 4) * B * rows * hidden
    )
    yield _gated("experts", rows, config.moe_intermediate_size)
    if config.n_shared_experts:
        yield _gated("shared experts", t, config.n_shared_experts * config.moe_intermediate_size)


def _cast(job: Job, layout: ParallelSettings, kind: Kind, t: float) -> float:
    """Inputs of products are read in two bytes and written twice in one: as they lie, and turned for the backward."""
    config = job.config
    width = 3 * config.hidden_size + config.num_attention_heads * config.value_dim + (config.q_lora_rank or 0)
    if kind == "dense":
        return 4 * t * (width + config.intermediate_size)
    rows = config.num_experts_per_tok * (config.hidden_size + config.moe_intermediate_size)
    return 4 * t * (width + rows + config.n_shared_experts * config.moe_intermediate_size)
