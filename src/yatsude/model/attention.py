"""softmax(query · keyᵀ · scale + mask) · value, and what every attention needs of a cache.

Shapes: B batch, T queries, S keys, H heads, d width of queries and keys, v width of values.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from yatsude.model.native import library

__all__ = ["Cache", "attend", "causal_mask"]


BLOCK = 128
"""Queries of one batched product on a CPU."""


class Cache(Protocol):
    """What attention needs of a cache; `engine` owns the memory."""

    def append(self, layer: int, first_BTX: Tensor, second_BTY: Tensor) -> tuple[Tensor, Tensor]:
        """Store what is kept of the new tokens, widths as in `ModelConfig.cache_widths`; all so far come back."""
        ...


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
        if query.requires_grad and library.usable(query, key, value):
            return _Compiled.apply(query, key, value, None if mask is None else mask.to(query.dtype), scale)
        if mask is None:
            mask = causal_mask(query.shape[2], key.shape[2], query)[None]
        return _Attend.apply(query, key, value, mask.to(query.dtype), scale)
    if mask is None and query.shape[2] != key.shape[2]:  # the kernel would let the first query see the first key alone
        mask = causal_mask(query.shape[2], key.shape[2], query)[None]
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


class _Compiled(torch.autograd.Function):
    """The same with scale, mask and softmax in place in one pass, over the keys alone that a query may see."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        batch, heads, queries, keys = *query.shape[:3], key.shape[2]
        query, key, value = (part.flatten(0, 1) for part in (query, key, value))
        out = query.new_empty(batch * heads, queries, value.shape[2])
        weights: list[Tensor] = []
        for rows, seen in _blocks(queries, keys):
            block = torch.bmm(query[:, rows], key[:, seen].mT)
            open_keys = None if mask is None else mask[:, rows, seen].expand(batch, -1, -1)
            strides = (0, 0) if open_keys is None else open_keys.stride()[:2]
            library.call(
                "weights_forward", block, open_keys, batch * heads, heads, *block.shape[1:],
                _first(rows.start, queries, keys, mask is None), *strides, scale,
            )  # fmt: skip
            torch.bmm(block, value[:, seen], out=out[:, rows])
            weights.append(block)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.scale, ctx.shape, ctx.causal = scale, (batch, heads), mask is None
        return out.unflatten(0, (batch, heads))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        queries, keys = query.shape[1], key.shape[1]
        grad = grads[0].flatten(0, 1)
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for (rows, seen), block in zip(_blocks(queries, keys), weights, strict=True):
            grad_value[:, seen].baddbmm_(block.mT, grad[:, rows])
            grad_scores = torch.bmm(grad[:, rows], value[:, seen].mT)
            first = _first(rows.start, queries, keys, ctx.causal)
            library.call("weights_backward", grad_scores, block, *block.shape, first, ctx.scale)
            torch.bmm(grad_scores, key[:, seen], out=grad_query[:, rows])
            grad_key[:, seen].baddbmm_(grad_scores.mT, query[:, rows])
        return *(g.unflatten(0, ctx.shape) for g in (grad_query, grad_key, grad_value)), None, None


def _first(start: int, queries: int, keys: int, causal: bool) -> int:
    """How many keys query number `start` may see; each later one sees one more, and nobody more than there are."""
    return start + 1 + keys - queries if causal or queries == keys else keys


def _blocks(queries: int, keys: int) -> list[tuple[slice, slice]]:
    """Cut the queries into blocks, each with the keys that it may see."""
    if queries != keys:
        return [(slice(0, queries), slice(0, keys))]
    starts = range(0, queries, BLOCK)
    return [(slice(start, start + BLOCK), slice(0, start + BLOCK)) for start in starts]  # a slice ends with its tensor
