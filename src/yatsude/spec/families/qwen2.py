"""Qwen2 and Qwen2.5 (arXiv 2407.10671): dense, with biases on queries, keys and values."""

from yatsude.spec.families import grouped
from yatsude.spec.family import Family

FAMILY = Family(
    architecture="Qwen2ForCausalLM",
    dense=True,
    fields=grouped.FIELDS,
    fixed={**grouped.FIXED, "attention_bias": True},
    says={**grouped.SAYS, "use_sliding_window": False},
    ignored=grouped.IGNORED,
    prepare=grouped.prepare,
)
