"""What the families with grouped attention share."""

from typing import Any

__all__ = ["FIELDS", "FIXED", "IGNORED", "SAYS", "prepare"]

FIELDS = ("num_key_value_heads", "head_dim")
FIXED = {"kv_lora_rank": 0, "rope_interleave": False}
SAYS = {"hidden_act": "silu", "attention_dropout": 0.0}
IGNORED = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")


def prepare(page: dict[str, Any]) -> dict[str, Any]:
    """Fill in what files may leave out, and read a sliding window as a limit: within it, it changes nothing."""
    page, heads, hidden = dict(page), page.get("num_attention_heads"), page.get("hidden_size")
    if page.get("num_key_value_heads") is None:
        page["num_key_value_heads"] = heads
    if page.get("head_dim") is None and isinstance(heads, int) and isinstance(hidden, int) and heads:
        page["head_dim"] = hidden // heads
    size, limit = page.get("sliding_window"), page.get("max_position_embeddings")
    if page.get("use_sliding_window", True) and isinstance(size, int) and isinstance(limit, int):
        page["max_position_embeddings"] = min(size, limit)
    return page
