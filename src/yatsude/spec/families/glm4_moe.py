"""GLM-4.5 (arXiv 2508.06471): grouped attention under DeepSeek's mixture, so a shared expert beside the routed ones."""

from typing import Any

from yatsude.spec.families import grouped
from yatsude.spec.families.deepseek_v3 import MIXTURE
from yatsude.spec.family import Family


def _prepare(page: dict[str, Any]) -> dict[str, Any]:
    rope = page.get("rope_parameters") or {}
    share = rope.get("partial_rotary_factor", page.get("partial_rotary_factor", 0.5))
    return {**grouped.prepare(page), "partial_rotary_factor": share}


FAMILY = Family(
    architecture="Glm4MoeForCausalLM",
    fields=(
        *grouped.FIELDS,
        "qk_norm",
        "attention_bias",
        "partial_rotary_factor",
        *MIXTURE,
    ),
    keys={"qk_norm": "use_qk_norm"},
    fixed={**grouped.FIXED, "scoring_func": "sigmoid"},
    says=grouped.SAYS,
    defaults={
        "rms_norm_eps": 1e-5,
        "use_qk_norm": False,
        "attention_bias": False,
        "num_nextn_predict_layers": 0,
    },
    ignored=grouped.IGNORED,
    prepare=_prepare,
)
