"""DeepSeek-V3 (arXiv 2412.19437), the layout of this project: latent attention, sigmoid router, shared expert."""

from yatsude.spec.family import Family

MIXTURE = (
    "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "n_shared_experts", "first_k_dense_replace",
    "norm_topk_prob", "routed_scaling_factor", "n_group", "topk_group", "num_nextn_predict_layers",
)  # fmt: skip
"""What says how its mixture is made; other families take it over."""

FAMILY = Family(
    architecture="DeepseekV3ForCausalLM",
    fields=(
        "kv_lora_rank",
        "q_lora_rank",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "v_head_dim",
        *MIXTURE,
        "rope_interleave",
    ),
    fixed={"scoring_func": "sigmoid"},
    says={
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "moe_layer_freq": 1,
        "ep_size": 1,
    },
    defaults={"rope_interleave": True, "num_nextn_predict_layers": 0},
    ignored=("num_key_value_heads", "qk_head_dim", "head_dim", "aux_loss_alpha", "seq_aux", "n_local_experts"),
    finish=lambda page: {**page, "num_key_value_heads": page["num_attention_heads"]},
)
