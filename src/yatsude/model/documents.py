"""Which tokens see each other in packed rows: those of the same document, each the earlier ones.

Shapes: B rows, T tokens.
"""

import functools
import math

import torch
from torch import Tensor

__all__ = ["Documents"]

SHORT = 1024
"""Rows of up to so many tokens keep their masks for all layers; of longer ones they are made again for each."""
ROUND = 64
"""Keys begin at a multiple of this: products of a few sizes are set up once."""


class Documents:
    """The number of each token's document, shape (B, T); a document lies in one piece."""

    def __init__(self, document_BT: Tensor) -> None:
        self.document_BT = document_BT
        self._kept: dict[tuple[int, int, int, torch.dtype], Tensor] = {}

    def mask(self, rows: slice, seen: slice, dtype: torch.dtype) -> Tensor:
        """Additive mask of some queries over some keys, shape (B, rows, seen): 0 where a token may look, else -inf."""
        key = (rows.start, seen.start, seen.stop, dtype)
        mask = self._kept.get(key)
        if mask is None:
            mask = self._made(rows, seen, dtype)
            if self.document_BT.shape[1] <= SHORT:
                self._kept[key] = mask
        return mask

    def whole(self, dtype: torch.dtype) -> Tensor:
        """The mask of all tokens, shape (B, T, T)."""
        everything = slice(0, self.document_BT.shape[1])
        return self._made(everything, everything, dtype)

    def first(self, query: int) -> int:
        """The first key that any row's query of this number, or a later one, may see, or a few before it."""
        return self._first[query]

    @functools.cached_property
    def _first(self) -> list[int]:
        """For each place the earliest beginning of a document that stands there, over all rows."""
        document = self.document_BT
        place = torch.arange(document.shape[1], device=document.device)
        begins = torch.ones_like(document, dtype=torch.bool)
        begins[:, 1:] = document[:, 1:] != document[:, :-1]
        earliest = torch.where(begins, place, 0).cummax(1).values.amin(0)
        return [start - start % ROUND for start in earliest.tolist()]

    def _made(self, rows: slice, seen: slice, dtype: torch.dtype) -> Tensor:
        queries, keys = self.document_BT[:, rows], self.document_BT[:, seen]
        place = torch.arange(self.document_BT.shape[1], device=keys.device)
        open_keys = (queries[:, :, None] == keys[:, None, :]) & (place[rows, None] >= place[None, seen])
        return torch.zeros(open_keys.shape, dtype=dtype, device=keys.device).masked_fill_(~open_keys, -math.inf)
