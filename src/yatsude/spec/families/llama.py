"""Llama (arXiv 2307.09288, 2407.21783): dense, grouped attention."""

from yatsude.spec.families import grouped
from yatsude.spec.family import Family

FAMILY = Family(
    architecture="LlamaForCausalLM",
    dense=True,
    fields=grouped.FIELDS,
    fixed=grouped.FIXED,
    says={**grouped.SAYS, "attention_bias": False, "mlp_bias": False},
    defaults={"bos_token_id": 1, "eos_token_id": 2},
    ignored=grouped.IGNORED,
    prepare=lambda page: grouped.prepare({"num_key_value_heads": page.get("num_attention_heads"), **page}),
)
