"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1; DeepSeek-V3 keeps it).

Keys and values of all heads are made from one latent a token; a cache holds the latent and one rotary key.

Shapes: B batch, T queries, S keys, H heads, C latent width, R rotary width, D hidden width.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from yatsude.model import precision
from yatsude.model.norm import RMSNorm
from yatsude.model.rope import rotate
from yatsude.spec.config import ModelConfig

__all__ = ["LatentAttention", "LatentCache", "attend"]


BLOCK = 128
"""Queries of one batched product on a CPU."""


class LatentCache(Protocol):
    """What attention needs of a cache; `engine` owns the memory."""

    def append(self, layer: int, latent_BTC: Tensor, rope_key_BTR: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens' latents and rotary keys; all so far come back, shapes (B, S, C) and (B, S, R)."""
        ...


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
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, config.rms_norm_eps)
            self.q_b_proj = nn.Linear(config.q_lora_rank, heads * config.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, config.kv_lora_rank + config.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, config.rms_norm_eps)
        self.kv_b_proj = nn.Linear(config.kv_lora_rank, heads * nope_and_value, bias=False)
        self.o_proj = nn.Linear(heads * config.v_head_dim, hidden, bias=False)
        self.scale = config.qk_head_dim**-0.5

    def forward(
        self, x_BTD: Tensor, rotations_BTR: Tensor, mask_BTS: Tensor | None, cache: LatentCache | None = None
    ) -> Tensor:
        """Attend; `mask_BTS` is 0 where a query may look and -inf elsewhere (none: causal over the T tokens)."""
        query_nope, query_rope = self._queries(x_BTD, rotations_BTR)
        latent, rope_key = self.kv_a_proj_with_mqa(x_BTD).split(
            (self.config.kv_lora_rank, self.config.qk_rope_head_dim), -1
        )
        latent = self.kv_a_layernorm(latent)
        rope_key = rotate(rope_key[:, :, None], rotations_BTR)[:, :, 0]
        if cache is None:
            out = self._expanded(query_nope, query_rope, latent, rope_key, mask_BTS)
        else:
            latent, rope_key = cache.append(self.layer, latent, rope_key)
            out = self._absorbed(query_nope, query_rope, latent, rope_key, mask_BTS)
        return self.o_proj(out.flatten(2))

    def _queries(self, x_BTD: Tensor, rotations_BTR: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.q_lora_rank is None:
            query = self.q_proj(x_BTD)
        else:
            query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD)))
        query = query.unflatten(-1, (self.config.num_attention_heads, -1))
        nope, rope = query.split((self.config.qk_nope_head_dim, self.config.qk_rope_head_dim), -1)
        return nope, rotate(rope, rotations_BTR)

    def _expanded(
        self, query_nope: Tensor, query_rope: Tensor, latent: Tensor, rope_key: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Make every head's keys and values from the latent: best for many queries. Out: (B, T, H, v)."""
        heads = self.config.num_attention_heads
        key_value = self.kv_b_proj(latent).unflatten(-1, (heads, -1))
        key_nope, value = key_value.split((self.config.qk_nope_head_dim, self.config.v_head_dim), -1)
        rope_key = rope_key[:, :, None].expand(-1, -1, heads, -1)
        # transposed first: joining copies anyway, and the products want each head's tokens next to each other
        query = torch.cat((query_nope.transpose(1, 2), query_rope.transpose(1, 2)), -1)
        key = torch.cat((key_nope.transpose(1, 2), rope_key.transpose(1, 2)), -1)
        return attend(query, key, value.transpose(1, 2), mask, self.scale).transpose(1, 2)

    def _absorbed(
        self, query_nope: Tensor, query_rope: Tensor, latent: Tensor, rope_key: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Fold the key and value projections into the queries and the output: a step reads the latent alone."""
        weight = self.kv_b_proj.weight.unflatten(0, (self.config.num_attention_heads, -1))
        to_key, to_value = weight.split((self.config.qk_nope_head_dim, self.config.v_head_dim), 1)
        query = torch.einsum("bthn,hnc->bthc", query_nope, to_key)
        scores = torch.einsum("bthc,bsc->bhts", query, latent) + torch.einsum("bthr,bsr->bhts", query_rope, rope_key)
        scores = precision.wide(scores) * self.scale
        if mask is None:
            mask = causal_mask(scores.shape[-2], scores.shape[-1], scores)
        weights = torch.softmax(scores + mask.unsqueeze(-3), -1).to(latent.dtype)
        return torch.einsum("bhts,bsc,hvc->bthv", weights, latent, to_value)


def causal_mask(queries: int, keys: int, like: Tensor) -> Tensor:
    """Additive mask of shape (T, S): the last query sees every key, each earlier one a key less."""
    mask = torch.full((queries, keys), -math.inf, dtype=like.dtype, device=like.device)
    return mask.triu_(keys - queries + 1)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(query · keyᵀ · scale + mask) · value.

    query (B, H, T, d), key (B, H, S, d), value (B, H, S, v), mask (B, T, S) additive, None: causal; out (B, H, T, v).
    Where T = S the mask must be causal: on a CPU later keys are not even read.
    """
    if query.device.type == "cpu":
        if mask is None:
            mask = causal_mask(query.shape[2], key.shape[2], query)[None]
        return _Attend.apply(query, key, value, mask.to(query.dtype), scale)
    return functional.scaled_dot_product_attention(
        query, key, value, None if mask is None else mask[:, None].to(query.dtype), is_causal=mask is None, scale=scale
    )


class _Attend(torch.autograd.Function):
    """Attention as batched products that keep the weights: on a CPU twice as fast as the fused kernel.

    Queries are taken in blocks; with a query for every key, no block reads keys behind its own end.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        batch, heads = query.shape[:2]
        query, key, value = (part.flatten(0, 1) for part in (query * scale, key, value))
        out = query.new_empty(*query.shape[:2], value.shape[2])
        weights: list[Tensor] = []
        for rows, seen in _blocks(query.shape[1], key.shape[1]):
            scores = torch.bmm(query[:, rows], key[:, seen].mT)
            scores.unflatten(0, (batch, heads)).add_(mask[:, None, rows, seen])
            weights.append(torch.softmax(scores, -1))
            out[:, rows] = torch.bmm(weights[-1], value[:, seen])
        ctx.save_for_backward(query, key, value, *weights)
        ctx.scale, ctx.shape = scale, (batch, heads)
        return out.unflatten(0, (batch, heads))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        grad = grads[0].flatten(0, 1)
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for (rows, seen), block in zip(_blocks(query.shape[1], key.shape[1]), weights, strict=True):
            grad_value[:, seen] += torch.bmm(block.mT, grad[:, rows])
            grad_weights = torch.bmm(grad[:, rows], value[:, seen].mT)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, block, -1, block.dtype)
            grad_query[:, rows] = torch.bmm(grad_scores, key[:, seen])
            grad_key[:, seen] += torch.bmm(grad_scores.mT, query[:, rows])
        return *(g.unflatten(0, ctx.shape) for g in (grad_query.mul_(ctx.scale), grad_key, grad_value)), None, None


def _blocks(queries: int, keys: int) -> list[tuple[slice, slice]]:
    """Cut the queries into blocks, each with the keys that it may see."""
    if queries != keys:
        return [(slice(0, queries), slice(0, keys))]
    starts = range(0, queries, BLOCK)
    return [(slice(start, start + BLOCK), slice(0, start + BLOCK)) for start in starts]  # a slice ends with its tensor
