"""Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245): several queries share a head of keys and values.

Shapes: B batch, T queries, S keys, H heads, G heads of keys and values, d head width, D hidden width.
"""

import torch
from torch import Tensor, nn

from yatsude.model.attention import Cache, Mask, attend
from yatsude.model.norm import RMSNorm
from yatsude.model.rope import rotate
from yatsude.spec.config import ModelConfig

__all__ = ["GroupedAttention"]


class GroupedAttention(nn.Module):
    """Attention of one layer; `layer` is its number, by which a cache knows it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        hidden, width, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.q_proj = nn.Linear(hidden, config.num_attention_heads * width, bias=bias)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * width, bias=bias)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * width, bias=bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(width, config.rms_norm_eps)
            self.k_norm = RMSNorm(width, config.rms_norm_eps)
        self.o_proj = nn.Linear(config.num_attention_heads * width, hidden, bias=False)

    def forward(self, x_BTD: Tensor, rotations_BTR: Tensor, mask: Mask, cache: Cache | None = None) -> Tensor:
        """Attend; `mask`: see `attention`; none is causal over the T tokens."""
        query, key, value = (
            project(x_BTD).unflatten(-1, (-1, self.config.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.config.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = self._rotated(query, rotations_BTR), self._rotated(key, rotations_BTR)
        if cache is not None:
            key, value = (
                part.unflatten(-1, (-1, self.config.head_dim))
                for part in cache.append(self.layer, key.flatten(2), value.flatten(2))
            )
        shared = query.shape[2] // key.shape[2]  # heads as many as this process holds
        key, value = (part.transpose(1, 2).repeat_interleave(shared, 1) for part in (key, value))
        out = attend(query.transpose(1, 2), key, value, mask, self.config.head_dim**-0.5)
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def _rotated(self, x: Tensor, rotations_BTR: Tensor) -> Tensor:
        """Rotate the first `rotary_dim` numbers of each head."""
        width = self.config.rotary_dim
        if width == x.shape[-1]:
            return rotate(x, rotations_BTR, self.config.rope_interleave)
        turned = rotate(x[..., :width], rotations_BTR, self.config.rope_interleave)
        return torch.cat((turned, x[..., width:]), -1)
