"""The page that `yatsude info` prints: a model in numbers, before any of it exists."""

from collections.abc import Sequence
from pathlib import Path

from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import (
    Dtype,
    cache_bytes,
    count,
    forward_flops,
    read_bytes,
    resident_bytes,
    training_flops,
)
from yatsude.spec.hf import read
from yatsude.spec.presets import preset

__all__ = ["RESIDENCE", "find", "render"]

RESIDENCE = (
    "A mixture saves reading and arithmetic, not residence: each token uses few experts, but the next token may use"
    " any other, so all of them must lie in memory."
)
CLAIM = (
    "The widespread claim that a model of 671 B parameters with 37 B active needs 94 % less memory is wrong: it reads"
    " and computes 94 % less for one token, and occupies all of its 671 B."
)


def find(word: str) -> ModelConfig:
    """Look a model up: the config.json of a folder if `word` is one, else the preset of that name."""
    folder = Path(word)
    if folder.is_dir() or folder.name != word:
        return read(folder)
    return preset(word)


def render(config: ModelConfig, *, name: str = "model", context: int | None = None, dtype: Dtype = "bfloat16") -> str:
    """Lay a model out as plain text; `context` (tokens) is where attention is counted, else all the model allows."""
    context = config.max_position_embeddings if context is None else context
    blocks = (_shape(config, name), _parameters(config), _costs(config, context), _bytes(config, context, dtype))
    return "\n\n".join((*blocks, RESIDENCE, CLAIM)) + "\n"


def _shape(config: ModelConfig, name: str) -> str:
    counts = count(config)
    ahead = f", and {_short(counts.mtp)} that predict further ahead" if counts.mtp else ""
    attention = f"latent {config.kv_lora_rank}" if config.kv_lora_rank else f"{config.num_key_value_heads} of keys"
    dense = f"{config.first_k_dense_replace} dense of width {config.intermediate_size}, "
    lines = [
        f"{name}: {_short(counts.total)} parameters, {_short(counts.active)} active{ahead}",
        f"  {config.num_hidden_layers} layers of {config.hidden_size},"
        f" {dense if config.first_k_dense_replace else ''}{config.moe_layers} mixtures ({config.model_type})",
        _mixture(config) if config.moe_layers else "",
        f"  {config.num_attention_heads} heads, {attention}, vocabulary {config.vocab_size:,},"
        f" context {config.max_position_embeddings:,}",
    ]
    return "\n".join(line for line in lines if line)


def _mixture(config: ModelConfig) -> str:
    groups = f", from {config.topk_group} of {config.n_group} groups" if config.n_group > 1 else ""
    return (
        f"  {config.n_routed_experts} routed experts, {config.num_experts_per_tok} a token{groups},"
        f" {config.n_shared_experts} shared, width {config.moe_intermediate_size}"
    )


def _parameters(config: ModelConfig) -> str:
    counts = count(config)
    rows = [("parameters", "total", "active for a token")]
    for part, total in counts.parts.items():
        if total:
            rows.append((part.replace("_", " "), f"{total:,}", f"{counts.active_parts[part]:,}"))
    rows.append(("sum", f"{counts.total:,}", f"{counts.active:,}"))
    return _table(rows)


def _costs(config: ModelConfig, context: int) -> str:
    return _table(
        [
            ("a token costs", "FLOPs"),
            ("forward, weights alone", _short(forward_flops(config))),
            (f"forward, looking at {context:,} tokens", _short(forward_flops(config, context))),
            (f"training, sequences of {context:,}", _short(training_flops(config, context))),
        ]
    )


def _bytes(config: ModelConfig, context: int, dtype: Dtype) -> str:
    resident = resident_bytes(config, dtype)
    rows = [(f"bytes in {dtype}", "", ""), ("resident, all weights", _size(resident), "100 %")]
    for tokens in (1, 8, 64):
        read = read_bytes(config, dtype, tokens)
        share = f"{100 * read * tokens / resident:.1f} %"
        label = "read for one token alone" if tokens == 1 else f"read for {tokens} tokens at once, for each"
        rows.append((label, _size(read), f"{share} of the weights touched"))
    cache = cache_bytes(config, dtype)
    rows.append(("cache for each token", _size(cache), f"{_size(cache * context)} at {context:,} tokens"))
    return _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """First column to the left, the rest to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _short(number: float) -> str:
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.4g} {unit}"
    return f"{number:g}"


def _size(number: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.4g} {unit}"
    return f"{number:g} B"
