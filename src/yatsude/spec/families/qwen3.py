"""Qwen3, dense (arXiv 2505.09388): a norm on each head's query and key."""

from yatsude.spec.families import grouped
from yatsude.spec.family import Family

FAMILY = Family(
    architecture="Qwen3ForCausalLM",
    dense=True,
    fields=grouped.FIELDS,
    fixed={**grouped.FIXED, "qk_norm": True},
    says={**grouped.SAYS, "attention_bias": False, "use_sliding_window": False},
    ignored=grouped.IGNORED,
    prepare=lambda page: grouped.prepare({"head_dim": 128, **page}),
)
