"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1; DeepSeek-V3 keeps it).

Keys and values of all heads are made from one latent a token; a cache holds the latent and one rotary key.

Shapes: B batch, T queries, S keys, H heads, C latent width, R rotary width, D hidden width.
"""

import torch
from torch import Tensor, nn

from yatsude.model import precision
from yatsude.model.attention import Cache, Mask, attend, dense
from yatsude.model.norm import RMSNorm
from yatsude.model.rope import rotate
from yatsude.spec.config import ModelConfig

__all__ = ["LatentAttention"]

EPSILON = 1e-6
"""Of the norms on the latents: the same in every model, whatever rms_norm_eps says, as transformers has it."""


class LatentAttention(nn.Module):
    """Attention of one layer; `layer` is its number, by which a cache knows it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        heads, hidden = config.num_attention_heads, config.hidden_size
        nope_and_value = config.qk_nope_head_dim + config.v_head_dim
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(hidden, heads * config.qk_head_dim, bias=False)
        else:
            self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, EPSILON)
            self.q_b_proj = nn.Linear(config.q_lora_rank, heads * config.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, config.kv_lora_rank + config.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, EPSILON)
        self.kv_b_proj = nn.Linear(config.kv_lora_rank, heads * nope_and_value, bias=False)
        self.o_proj = nn.Linear(heads * config.v_head_dim, hidden, bias=False)
        stretch = config.rope_scaling
        longer = stretch.magnitude(stretch.mscale_all_dim) if stretch and stretch.mscale_all_dim else 1.0
        self.scale = config.qk_head_dim**-0.5 * longer**2

    def forward(self, x_BTD: Tensor, rotations_BTR: Tensor, mask: Mask, cache: Cache | None = None) -> Tensor:
        """Attend; `mask`: see `attention`; none is causal over the T tokens."""
        query_nope, query_rope = self._queries(x_BTD, rotations_BTR)
        latent, rope_key = self.kv_a_proj_with_mqa(x_BTD).split(
            (self.config.kv_lora_rank, self.config.qk_rope_head_dim), -1
        )
        latent = self.kv_a_layernorm(latent)
        rope_key = rotate(rope_key[:, :, None], rotations_BTR, self.config.rope_interleave)[:, :, 0]
        if cache is not None:
            latent, rope_key = cache.append(self.layer, latent, rope_key)
        read = self._expanded if cache is None or cache.learns else self._absorbed
        return self.o_proj(read(query_nope, query_rope, latent, rope_key, mask).flatten(2))

    def _queries(self, x_BTD: Tensor, rotations_BTR: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.q_lora_rank is None:
            query = self.q_proj(x_BTD)
        else:
            query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD)))
        query = query.unflatten(-1, (-1, self.config.qk_head_dim))  # heads as many as this process holds
        nope, rope = query.split((self.config.qk_nope_head_dim, self.config.qk_rope_head_dim), -1)
        return nope, rotate(rope, rotations_BTR, self.config.rope_interleave)

    def _expanded(self, query_nope: Tensor, query_rope: Tensor, latent: Tensor, rope_key: Tensor, mask: Mask) -> Tensor:
        """Make every head's keys and values from the latent: best for many queries. Out: (B, T, H, v)."""
        widths = self.config.qk_nope_head_dim, self.config.v_head_dim
        key_nope, value = self.kv_b_proj(latent).unflatten(-1, (-1, sum(widths))).split(widths, -1)
        rope_key = rope_key[:, :, None].expand(-1, -1, key_nope.shape[2], -1)
        # transposed first: joining copies anyway, and the products want each head's tokens next to each other
        query = torch.cat((query_nope.transpose(1, 2), query_rope.transpose(1, 2)), -1)
        key = torch.cat((key_nope.transpose(1, 2), rope_key.transpose(1, 2)), -1)
        return attend(query, key, value.transpose(1, 2), mask, self.scale).transpose(1, 2)

    def _absorbed(self, query_nope: Tensor, query_rope: Tensor, latent: Tensor, rope_key: Tensor, mask: Mask) -> Tensor:
        """Fold the key and value projections into the queries and the output: a step reads the latent alone."""
        weight = self.kv_b_proj.weight.unflatten(0, (self.config.num_attention_heads, -1))
        to_key, to_value = weight.split((self.config.qk_nope_head_dim, self.config.v_head_dim), 1)
        query = torch.einsum("bthn,hnc->bthc", query_nope, to_key)
        scores = torch.einsum("bthc,bsc->bhts", query, latent) + torch.einsum("bthr,bsr->bhts", query_rope, rope_key)
        scores = precision.wide(scores) * self.scale
        seen = dense(mask, scores.shape[-2], scores.shape[-1], scores)[:, None]
        weights = torch.softmax(scores + seen, -1).to(latent.dtype)
        return torch.einsum("bhts,bsc,hvc->bthv", weights, latent, to_value)
