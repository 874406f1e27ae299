"""Which tokens see each other in packed rows: those of the same document, each the earlier ones.

Shapes: B rows, S keys, T queries.
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
    """The number of each token's document, shape (B, S); a document lies in one piece.

    `places` (T,), rising, are those of the queries where this process holds not all of them; none: T = S.
    """

    def __init__(self, document_BS: Tensor, places_T: Tensor | None = None) -> None:
        self.document_BS = document_BS
        self._all = torch.arange(document_BS.shape[1], device=document_BS.device)
        self.places_T = self._all if places_T is None else places_T
        self._kept: dict[tuple[int, int, int, torch.dtype], Tensor] = {}

    def mask(self, rows: slice, seen: slice, dtype: torch.dtype) -> Tensor:
        """Additive mask of some queries over some keys, shape (B, rows, seen): 0 where a token may look, else -inf."""
        key = (rows.start, seen.start, seen.stop, dtype)
        mask = self._kept.get(key)
        if mask is None:
            mask = self._made(rows, seen, dtype)
            if self.document_BS.shape[1] <= SHORT:
                self._kept[key] = mask
        return mask

    def whole(self, dtype: torch.dtype) -> Tensor:
        """The mask of all queries, shape (B, T, S)."""
        return self._made(slice(None), slice(None), dtype)

    def seen(self, rows: slice) -> slice:
        """The keys that some queries may see in any row, and a few before them."""
        first, last = self._ends[rows.start], self._ends[rows.stop - 1]
        return slice(first[0], last[1] + 1)

    @functools.cached_property
    def _ends(self) -> list[tuple[int, int]]:
        """For each query the earliest beginning of a document that stands there, over all rows, and its own place."""
        begins = torch.ones_like(self.document_BS, dtype=torch.bool)
        begins[:, 1:] = self.document_BS[:, 1:] != self.document_BS[:, :-1]
        earliest = torch.where(begins, self._all, 0).cummax(1).values.amin(0)[self.places_T]
        rounded = earliest - earliest % ROUND
        return list(zip(rounded.tolist(), self.places_T.tolist(), strict=True))

    def _made(self, rows: slice, seen: slice, dtype: torch.dtype) -> Tensor:
        places = self.places_T[rows]
        queries, keys = self.document_BS[:, places], self.document_BS[:, seen]
        open_keys = (queries[:, :, None] == keys[:, None, :]) & (places[:, None] >= self._all[None, seen])
        return torch.zeros(open_keys.shape, dtype=dtype, device=keys.device).masked_fill_(~open_keys, -math.inf)
