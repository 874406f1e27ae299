"""Mistral (arXiv 2310.06825): as Llama; a sliding window is read as the longest context."""

from yatsude.spec.families import grouped
from yatsude.spec.family import Family

FAMILY = Family(
    architecture="MistralForCausalLM",
    dense=True,
    fields=grouped.FIELDS,
    fixed=grouped.FIXED,
    says=grouped.SAYS,
    defaults={"bos_token_id": 1, "eos_token_id": 2},
    ignored=grouped.IGNORED,
    prepare=grouped.prepare,
    finish=lambda page: {**page, "sliding_window": None},
)
