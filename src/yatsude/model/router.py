"""Which experts a token goes to: sigmoid scores, the top k by score plus bias (DeepSeek-V3, section 2.1.2).

The bias only chooses; weights come from the scores alone. `train` moves it against the load, so that no auxiliary
loss is needed. Shapes: N tokens, D hidden width, E experts, K experts a token.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from yatsude.model import precision
from yatsude.spec.config import ModelConfig

__all__ = ["Router"]


class Router(nn.Module):
    """Scores tokens against experts and counts where they went."""

    e_score_correction_bias: Tensor
    load: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))
        self.register_buffer("load", torch.zeros(config.n_routed_experts, dtype=torch.int64), persistent=False)

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Choose experts: weights (N, K) in at least float32, and expert numbers (N, K)."""
        scores_NE = functional.linear(precision.wide(x_ND), precision.wide(self.weight)).sigmoid()
        with torch.no_grad():
            chosen_NK = torch.topk(
                scores_NE + self.e_score_correction_bias, self.config.num_experts_per_tok, -1, sorted=False
            ).indices
            self.load += torch.bincount(chosen_NK.flatten(), minlength=self.config.n_routed_experts)
        weights_NK = scores_NE.gather(1, chosen_NK)
        if self.config.norm_topk_prob:
            weights_NK = weights_NK / (weights_NK.sum(-1, keepdim=True) + 1e-20)
        return weights_NK * self.config.routed_scaling_factor, chosen_NK
