"""Mistral (arXiv 2310.06825): as Llama, with a sliding window in the first version."""

from yatsude.spec.families import grouped
from yatsude.spec.family import Family

FAMILY = Family(
    architecture="MistralForCausalLM",
    dense=True,
    fields=(*grouped.FIELDS, "sliding_window"),
    fixed=grouped.FIXED,
    says=grouped.SAYS,
    defaults={"bos_token_id": 1, "eos_token_id": 2},
    ignored=("layer_types",),
    prepare=grouped.prepare,
)
