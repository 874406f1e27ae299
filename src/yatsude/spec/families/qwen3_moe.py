"""Qwen3's mixture (arXiv 2505.09388), the layout of LLM-jp-4 32B-A3B: norms on queries and keys, softmax router."""

from typing import Any

from yatsude.errors import CheckpointError
from yatsude.spec.families import grouped
from yatsude.spec.family import Family


def _prepare(page: dict[str, Any]) -> dict[str, Any]:
    dense = page.get("mlp_only_layers") or []
    if dense != list(range(len(dense))):
        raise CheckpointError(f"mlp_only_layers = {dense}: dense layers are supported below the mixtures alone")
    page = {**grouped.prepare(page), "first_k_dense_replace": len(dense)}
    return {"num_experts": page.get("num_local_experts"), **page}  # newer files say it so


def _finish(page: dict[str, Any]) -> dict[str, Any]:
    dense = page.pop("first_k_dense_replace")
    return {**page, "mlp_only_layers": list(range(dense))}


FAMILY = Family(
    architecture="Qwen3MoeForCausalLM",
    fields=(
        *grouped.FIELDS,
        "moe_intermediate_size",
        "n_routed_experts",
        "num_experts_per_tok",
        "norm_topk_prob",
        "first_k_dense_replace",
    ),
    keys={"n_routed_experts": "num_experts"},
    fixed={**grouped.FIXED, "qk_norm": True, "scoring_func": "softmax"},
    says={**grouped.SAYS, "attention_bias": False, "use_sliding_window": False, "decoder_sparse_step": 1},
    defaults={"norm_topk_prob": False},
    ignored=(*grouped.IGNORED, "mlp_only_layers", "num_local_experts"),
    prepare=_prepare,
    finish=_finish,
)
