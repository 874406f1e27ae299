"""Multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2): a layer that looks one token further ahead.

Layer k joins the hidden state at a token with the embedding of the k-th token after it, and predicts the one after
that. Embedding and head are those of the model. What a layer gives out, the next one takes in.
Shapes: B batch, T tokens, D hidden width.
"""

import torch
from torch import Tensor, nn

from yatsude.model.attention import Cache, Mask
from yatsude.model.block import Block
from yatsude.model.norm import RMSNorm
from yatsude.spec.config import ModelConfig

__all__ = ["MultiTokenLayer"]


class MultiTokenLayer(nn.Module):
    """One of the layers; `layer` is its number, counted on from those of the model."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        hidden, epsilon = config.hidden_size, config.rms_norm_eps
        self.enorm = RMSNorm(hidden, epsilon)
        self.hnorm = RMSNorm(hidden, epsilon)
        self.eh_proj = nn.Linear(2 * hidden, hidden, bias=False)
        self.block = Block(config, layer)
        self.norm = RMSNorm(hidden, epsilon)

    def forward(
        self,
        hidden_BTD: Tensor,
        embedded_BTD: Tensor,
        rotations: Tensor,
        mask: Mask,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states one token further ahead, after a norm, (B, T, D); the head turns them into scores."""
        x = self.eh_proj(torch.cat((self.enorm(embedded_BTD), self.hnorm(hidden_BTD)), -1))
        return self.norm(self.block(x, rotations, mask, cache))
