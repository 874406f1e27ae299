"""Which experts a token goes to: the top k by score, of the best groups where experts are grouped.

    sigmoid   DeepSeek-V3, section 2.1.2: a bias a expert helps to choose, and does not weigh. `train` moves it against
              the load, so that no auxiliary loss is needed
    softmax   Mixtral and Qwen3: no bias; balance comes from an auxiliary loss

Shapes: B sequences, T tokens, N = B·T, D hidden width, E experts, K experts a token.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from yatsude.model import precision
from yatsude.model.dispatch import counted
from yatsude.spec.config import ModelConfig

__all__ = ["Penalties", "Router"]

BEST = 2
"""A group is as good as its two best experts together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalties:
    """Auxiliary losses of a router while it is trained."""

    sequence: float = 0.0
    """Weight of the sequence-wise balance loss (DeepSeek-V3, eq. 17 to 20)."""
    z: float = 0.0
    """Weight of the z-loss, mean over tokens of logsumexp(logits)² (ST-MoE, arXiv 2202.08906, eq. 5)."""
    sequences: int = 1
    """Sequences of the whole step, of which this process may hold a share: losses are means over all of them."""


class Router(nn.Module):
    """Scores tokens against experts and counts where they went."""

    e_score_correction_bias: Tensor | None
    load: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.penalties: Penalties | None = None
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        bias = torch.zeros(config.n_routed_experts) if config.scoring_func == "sigmoid" else None
        self.register_buffer("e_score_correction_bias", bias)
        self.register_buffer("load", torch.zeros(config.n_routed_experts, dtype=torch.int64), persistent=False)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Choose experts: weights (N, K) in at least float32, and expert numbers (N, K)."""
        logits_NE = functional.linear(precision.wide(x_BTD.flatten(0, -2)), precision.wide(self.weight))
        scores_NE = logits_NE.sigmoid() if self.config.scoring_func == "sigmoid" else logits_NE.softmax(-1)
        with torch.no_grad():
            chosen_NK = torch.topk(self._choice(scores_NE), self.config.num_experts_per_tok, -1, sorted=False).indices
            self.load += counted(chosen_NK.flatten(), self.config.n_routed_experts)
        weights_NK = scores_NE.gather(1, chosen_NK)
        if self.config.norm_topk_prob:
            weights_NK = weights_NK / (weights_NK.sum(-1, keepdim=True) + 1e-20)
        weights_NK = weights_NK * self.config.routed_scaling_factor
        if self.penalties and torch.is_grad_enabled():
            weights_NK = _Attach.apply(weights_NK, self._penalty(logits_NE, scores_NE, chosen_NK, len(x_BTD)))
        return weights_NK, chosen_NK

    def _choice(self, scores_NE: Tensor) -> Tensor:
        """Scores by which experts are chosen: with the bias, and -inf outside of the best groups."""
        if self.e_score_correction_bias is not None:
            scores_NE = scores_NE + self.e_score_correction_bias
        if self.config.n_group == 1:
            return scores_NE
        grouped = scores_NE.unflatten(-1, (self.config.n_group, -1))
        best = torch.topk(grouped.topk(BEST, -1).values.sum(-1), self.config.topk_group, -1, sorted=False).indices
        outside = torch.ones(grouped.shape[:2], dtype=torch.bool, device=scores_NE.device).scatter_(1, best, False)
        return grouped.masked_fill(outside[..., None], -torch.inf).flatten(1)

    def _penalty(self, logits_NE: Tensor, scores_NE: Tensor, chosen_NK: Tensor, sequences: int) -> Tensor:
        """Auxiliary losses of the step, as far as they lie in this process."""
        assert self.penalties, "asked for only where there are penalties"
        z = torch.logsumexp(logits_NE, -1).square().mean() * self.penalties.z
        shares = (scores_NE / scores_NE.sum(-1, keepdim=True)).unflatten(0, (sequences, -1)).mean(1)
        fired = torch.zeros_like(scores_NE).scatter_(1, chosen_NK, 1.0).unflatten(0, (sequences, -1)).mean(1)
        even = self.config.n_routed_experts / self.config.num_experts_per_tok
        balance = (fired * shares).sum(-1).mean() * even * self.penalties.sequence
        return (z + balance) * (sequences / self.penalties.sequences)


class _Attach(torch.autograd.Function):
    """Hang a loss on a tensor: forward nothing changes, backward the loss gets a gradient of 1."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, loss: Tensor) -> Tensor:
        ctx.like = loss
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], torch.ones_like(ctx.like)
