"""softmax(query · keyᵀ · scale + mask) · value, and what every attention needs of a cache.

Shapes: B batch, T queries, S keys, H heads, d width of queries and keys, v width of values.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from yatsude.model.documents import Documents
from yatsude.model.native import library

__all__ = ["Cache", "Mask", "attend", "causal_mask", "dense"]

Mask = Tensor | Documents | None
"""Additive, (B, T, S): 0 where a token may look, -inf elsewhere; or of packed documents; None: causal."""

BLOCK = 128
"""Queries of one batched product on a CPU: no more of the scores are there at the same time."""
KEPT = 1024
"""Up to so many keys the weights wait for the backward pass; of longer sequences they are computed again."""


class Cache(Protocol):
    """Tokens that lie elsewhere: earlier ones, in the memory that `engine` owns, or those of other ranks."""

    learns: bool
    """Whether there will be a backward pass: keys and values are then made again from what comes back."""

    def append(self, layer: int, first_BTX: Tensor, second_BTY: Tensor) -> tuple[Tensor, Tensor]:
        """Store what is kept of the new tokens, widths as in `ModelConfig.cache_widths`; all so far come back."""
        ...


def causal_mask(queries: int, keys: int, like: Tensor) -> Tensor:
    """Additive mask of shape (T, S): the last query sees every key, each earlier one a key less."""
    mask = torch.full((queries, keys), -math.inf, dtype=like.dtype, device=like.device)
    return mask.triu_(keys - queries + 1)


def dense(mask: Mask, queries: int, keys: int, like: Tensor) -> Tensor:
    """The additive mask of all queries and keys, shape (B or 1, T, S)."""
    if isinstance(mask, Documents):
        return mask.whole(like.dtype)
    return causal_mask(queries, keys, like)[None] if mask is None else mask.to(like.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float) -> Tensor:
    """softmax(query · keyᵀ · scale + mask) · value.

    query (B, H, T, d), key (B, H, S, d), value (B, H, S, v), mask (B, T, S) additive, or of packed documents;
    None: causal; out (B, H, T, v). Where T = S a mask must be causal: on a CPU later keys are not even read. Of packed
    documents only those are read that a block of queries may see.
    """
    if query.device.type == "cpu":
        learns = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
        return _Attend.apply(query, key, value, mask, scale, learns)
    plain = mask is None and query.shape[2] == key.shape[2]  # else its first query would see the first key alone
    seen = None if plain else dense(mask, query.shape[2], key.shape[2], query)[:, None]
    return functional.scaled_dot_product_attention(query, key, value, seen, is_causal=plain, scale=scale)


class _Attend(torch.autograd.Function):
    """Attention as batched products over blocks of queries: on a CPU twice as fast as the fused kernel.

    With a query for every key, no block reads keys behind its own end.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float, learns: bool) -> Tensor:
        ctx.scale, ctx.shape, ctx.mask = scale, query.shape[:2], mask
        ctx.compiled = learns and library.usable(query, key, value)
        query, key, value = (part.flatten(0, 1) for part in (query, key, value))
        out = query.new_empty(*query.shape[:2], value.shape[2])
        kept: list[Tensor] = []
        for rows, seen in _blocks(query.shape[1], key.shape[1], mask):
            block = _weights(ctx, query, key, rows, seen)
            torch.bmm(block, value[:, seen], out=out[:, rows])
            kept += [block] if learns and key.shape[1] <= KEPT else []
        ctx.save_for_backward(query, key, value, *kept)
        return out.unflatten(0, ctx.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        grad = grads[0].flatten(0, 1)
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for number, (rows, seen) in enumerate(_blocks(query.shape[1], key.shape[1], ctx.mask)):
            block = kept[number] if kept else _weights(ctx, query, key, rows, seen)
            grad_value[:, seen].baddbmm_(block.mT, grad[:, rows])
            grad_weights = torch.bmm(grad[:, rows], value[:, seen].mT)
            grad_scores = _gradient(ctx, grad_weights, block, rows, seen, (query.shape[1], key.shape[1]))
            torch.bmm(grad_scores, key[:, seen], out=grad_query[:, rows])
            grad_key[:, seen].baddbmm_(grad_scores.mT, query[:, rows])
        mine = (part.unflatten(0, ctx.shape) for part in (grad_query, grad_key, grad_value))
        return *mine, None, None, None


def _weights(ctx: Any, query: Tensor, key: Tensor, rows: slice, seen: slice) -> Tensor:
    """softmax(query · keyᵀ · scale + mask) of some rows; compiled, in one pass over the keys that a query may see."""
    batch, heads = ctx.shape
    block = torch.bmm(query[:, rows], key[:, seen].mT)
    mask = _mask(ctx.mask, rows, seen, block)
    if not ctx.compiled:
        unseen = causal_mask(block.shape[1], block.shape[2], block) if mask is None else mask[:, None]
        block.mul_(ctx.scale).unflatten(0, ctx.shape).add_(unseen)
        return torch.softmax(block, -1)
    open_keys = None if mask is None else mask.expand(batch, -1, -1)
    if open_keys is not None and open_keys.stride(2) != 1:  # the pass walks along its keys
        open_keys = open_keys.contiguous()
    strides = (0, 0) if open_keys is None else open_keys.stride()[:2]
    first = _first(rows.start, query.shape[1], key.shape[1], ctx.mask) - seen.start
    library.call("weights_forward", block, open_keys, len(block), heads, *block.shape[1:], first, *strides, ctx.scale)
    return block


def _mask(mask: Mask, rows: slice, seen: slice, like: Tensor) -> Tensor | None:
    """The part of a mask that is of some queries and keys."""
    if isinstance(mask, Documents):
        return mask.mask(rows, seen, like.dtype)
    return None if mask is None else mask[:, rows, seen].to(like.dtype)


def _gradient(
    ctx: Any, grad_weights: Tensor, block: Tensor, rows: slice, seen: slice, sizes: tuple[int, int]
) -> Tensor:
    """Gradient of query · keyᵀ from that of the weights, which may be overwritten; `sizes`: of queries and keys."""
    if not ctx.compiled:
        return torch.ops.aten._softmax_backward_data(grad_weights, block, -1, block.dtype).mul_(ctx.scale)
    first = _first(rows.start, *sizes, ctx.mask) - seen.start
    library.call("weights_backward", grad_weights, block, *block.shape, first, ctx.scale)
    return grad_weights


def _first(start: int, queries: int, keys: int, mask: Mask) -> int:
    """How many keys query number `start` may see at most; each later one sees one more, and nobody more than all."""
    return start + 1 + keys - queries if mask is None or queries == keys else keys


def _blocks(queries: int, keys: int, mask: Mask) -> list[tuple[slice, slice]]:
    """Cut the queries into blocks, each with the keys that it may see; slices end with their tensors at the latest."""
    if queries != keys and not isinstance(mask, Documents):
        return [(slice(0, queries), slice(0, keys))]
    blocks = (slice(start, min(start + BLOCK, queries)) for start in range(0, queries, BLOCK))
    return [(rows, mask.seen(rows) if isinstance(mask, Documents) else slice(0, rows.stop)) for rows in blocks]
