"""What the families with grouped attention share."""

from typing import Any

__all__ = ["FIELDS", "FIXED", "IGNORED", "SAYS", "prepare"]

FIELDS = ("num_key_value_heads", "head_dim")
FIXED = {"kv_lora_rank": 0, "rope_interleave": False}
SAYS = {"hidden_act": "silu", "attention_dropout": 0.0}
IGNORED = ("sliding_window", "max_window_layers", "layer_types")
"""Said by files whose attention sees all the same; where a window is used, its key is none of these."""


def prepare(page: dict[str, Any]) -> dict[str, Any]:
    """Fill in the width of a head, which files may leave out."""
    heads, hidden = page.get("num_attention_heads"), page.get("hidden_size")
    if page.get("head_dim") is None and isinstance(heads, int) and isinstance(hidden, int) and heads:
        return {**page, "head_dim": hidden // heads}
    return page
