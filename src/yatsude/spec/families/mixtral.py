"""Mixtral (arXiv 2401.04088), the layout of RakutenAI-2.0: every layer a mixture, softmax router."""

from yatsude.spec.families import grouped
from yatsude.spec.family import Family

FAMILY = Family(
    architecture="MixtralForCausalLM",
    fields=(*grouped.FIELDS, "sliding_window", "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok"),
    keys={"moe_intermediate_size": "intermediate_size", "n_routed_experts": "num_local_experts"},
    fixed={**grouped.FIXED, "scoring_func": "softmax", "norm_topk_prob": True},
    says={**grouped.SAYS, "router_jitter_noise": 0.0},
    defaults={"rope_theta": 1e6, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2},
    ignored=("layer_types",),
    prepare=grouped.prepare,
    tensors=(
        (".mlp.", ".block_sparse_moe."),
        (".gate_proj.", ".w1."),
        (".down_proj.", ".w2."),
        (".up_proj.", ".w3."),
    ),
)
