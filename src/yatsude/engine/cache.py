"""The KV cache: for each token and layer what attention wants to see again, in two parts.

Latent attention keeps a latent and a rotary key for all heads together, grouped attention keys and values.
Rows are answers under way, kept side by side from row 0, so that a step reads plain slices.
Shapes: L layers, B rows, S tokens held, T tokens added, X and Y widths of the two parts (`ModelConfig.cache_widths`).
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from yatsude.spec.config import ModelConfig

__all__ = ["Memory", "Window"]

STEP = 256
"""Tokens by which the memory grows."""


class Memory:
    """Memory of `rows` answers; it grows with use, up to rows × tokens, and never again after that."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        rows: int,
        tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        ahead: bool = False,
    ) -> None:
        """`ahead` makes room for the first layer of multi-token prediction too."""
        self.max_rows, self.max_tokens = rows, tokens
        self.lengths = [0] * rows
        """Tokens that each row holds."""
        layers = config.num_hidden_layers + ahead
        first, second = config.cache_widths
        self.first_LBSX = torch.zeros(layers, 0, 0, first, dtype=dtype, device=device)
        self.second_LBSY = torch.zeros(layers, 0, 0, second, dtype=dtype, device=device)

    @property
    def bytes(self) -> int:
        """Bytes that are held now."""
        return self.first_LBSX.nbytes + self.second_LBSY.nbytes

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for `rows` rows of `tokens` tokens; what is held stays."""
        have_rows, have_tokens = self.first_LBSX.shape[1:3]
        if rows <= have_rows and tokens <= have_tokens:
            return
        rows = have_rows if rows <= have_rows else min(self.max_rows, max(rows, 2 * have_rows))
        tokens = have_tokens if tokens <= have_tokens else min(self.max_tokens, math.ceil(tokens / STEP) * STEP)
        self.first_LBSX = _grown(self.first_LBSX, rows, tokens)
        self.second_LBSY = _grown(self.second_LBSY, rows, tokens)

    def move(self, source: int, target: int) -> None:
        """Overwrite row `target` with row `source`, which is empty afterwards."""
        length = self.lengths[source]
        self.first_LBSX[:, target, :length] = self.first_LBSX[:, source, :length]
        self.second_LBSY[:, target, :length] = self.second_LBSY[:, source, :length]
        self.lengths[target], self.lengths[source] = length, 0

    def window(self, first: int, rows: int, tokens: int) -> "Window":
        """Open a pass that adds `tokens` tokens to each of `rows` rows from row `first`."""
        return Window(self, first, rows, tokens)


class Window:
    """The cache of one forward pass: a `Cache`, and the positions and mask that go with it."""

    learns = False

    def __init__(self, memory: Memory, first: int, rows: int, tokens: int) -> None:
        starts = memory.lengths[first : first + rows]
        self.memory, self.tokens = memory, tokens
        self.rows = slice(first, first + rows)
        self.end = max(starts) + tokens
        memory.reserve(first + rows, self.end)
        device = memory.first_LBSX.device
        starts_B1 = torch.tensor(starts, device=device)[:, None]
        self.positions_BT = starts_B1 + torch.arange(tokens, device=device)
        self.same_start = all(a == b for a, b in itertools.pairwise(starts))
        self.mask_BTS = None if self.same_start else self._mask(device)
        self._index = (torch.arange(first, first + rows, device=device)[:, None], self.positions_BT)

    def _mask(self, device: torch.device) -> Tensor:
        """Additive (B, T, S): a token sees its own row up to itself, not the rest of the memory."""
        unseen_BTS = torch.arange(self.end, device=device) > self.positions_BT[..., None]
        return torch.zeros(unseen_BTS.shape, device=device).masked_fill_(unseen_BTS, -math.inf)

    def append(self, layer: int, first_BTX: Tensor, second_BTY: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens of a layer; all so far come back, (B, S, X) and (B, S, Y)."""
        first_BSX, second_BSY = self.memory.first_LBSX[layer], self.memory.second_LBSY[layer]
        if self.same_start:
            new = slice(self.end - self.tokens, self.end)
            first_BSX[self.rows, new] = first_BTX
            second_BSY[self.rows, new] = second_BTY
        else:
            first_BSX[self._index] = first_BTX
            second_BSY[self._index] = second_BTY
        return first_BSX[self.rows, : self.end], second_BSY[self.rows, : self.end]

    def commit(self) -> None:
        """Count the new tokens as held, once every layer has stored them."""
        for row in range(self.rows.start, self.rows.stop):
            self.memory.lengths[row] += self.tokens

    def forget(self, counts: Sequence[int]) -> None:
        """Forget so many of the newest tokens of each row: they will be written over."""
        for row, count in zip(range(self.rows.start, self.rows.stop), counts, strict=True):
            self.memory.lengths[row] -= count


@torch.inference_mode(mode=False)  # a tensor made in inference mode could not be written to outside it
def _grown(old_LBSX: Tensor, rows: int, tokens: int) -> Tensor:
    layers, have_rows, have_tokens, width = old_LBSX.shape
    new_LBSX = old_LBSX.new_zeros(layers, rows, tokens, width)
    new_LBSX[:, :have_rows, :have_tokens] = old_LBSX
    return new_LBSX
