"""Which experts the tokens of held-out text went to, unit of text by unit of text.

A unit is what may be shuffled: about a window of tokens of one kind and style, from one document's beginning or from
several short documents, and no document is in two. So units are of about one size, and none knows of another.

Shapes: U units, N tokens, L mixture layers, E experts, K experts a token, B rows, T tokens a row.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from yatsude.evaluate.heldout import Tokens
from yatsude.model.documents import Documents
from yatsude.model.router_stats import bias_ranges
from yatsude.model.transformer import Transformer

__all__ = ["Routes", "Unit", "follow", "units"]

ROWS = 16
NO_UNIT = -1


@dataclasses.dataclass(frozen=True)
class Unit:
    """Texts of one kind and style that are read together."""

    kind: str
    style: str | None
    texts: list[Tokens]

    @property
    def size(self) -> int:
        """Tokens in all its texts."""
        return sum(map(len, self.texts))


@dataclasses.dataclass(frozen=True)
class Routes:
    """What the routers chose."""

    tokens_N: npt.NDArray[np.int64]
    units_N: npt.NDArray[np.int64]
    chosen_LNK: npt.NDArray[np.int64]
    experts: int
    biases: list[float | None]
    """`bias_ranges` of the layers."""

    def counts(self, number: int) -> npt.NDArray[np.int64]:
        """Tokens that each of `number` units sent to each expert of each layer, (U, L, E)."""
        layers, _, width = self.chosen_LNK.shape
        found = np.empty((number, layers, self.experts), np.int64)
        owner_M = np.repeat(self.units_N, width) * self.experts
        for layer, chosen_NK in enumerate(self.chosen_LNK):
            cells = np.bincount(owner_M + chosen_NK.ravel(), minlength=number * self.experts)
            found[:, layer] = cells.reshape(number, self.experts)
        return found

    def token_counts(self, number: int, tokens_V: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
        """The same for these tokens apart (sorted, all different), layer by layer: (U, V, E)."""
        places_N = np.searchsorted(tokens_V, self.tokens_N).clip(0, len(tokens_V) - 1)
        kept_N = tokens_V[places_N] == self.tokens_N
        width = self.chosen_LNK.shape[-1]
        rows_M = np.repeat(self.units_N[kept_N] * len(tokens_V) + places_N[kept_N], width) * self.experts
        for chosen_NK in self.chosen_LNK:
            cells = np.bincount(rows_M + chosen_NK[kept_N].ravel(), minlength=number * len(tokens_V) * self.experts)
            yield cells.reshape(number, len(tokens_V), self.experts)


def units(
    kinds: Mapping[str, Iterable[Tokens]], style_of: Callable[[Tokens], str | None], window: int, tokens: int
) -> list[Unit]:
    """Gather about `tokens` tokens in units of `window`, the same number of each kind as far as there are enough.

    Documents come as in `Shards`: a separator in front, another behind.
    """
    budget = max(1, tokens // max(len(kinds), 1))
    return [unit for kind, documents in kinds.items() for unit in _of_kind(kind, documents, style_of, window, budget)]


def _of_kind(
    kind: str, documents: Iterable[Tokens], style_of: Callable[[Tokens], str | None], window: int, budget: int
) -> list[Unit]:
    full: list[Unit] = []
    begun: dict[str | None, Unit] = {}
    size = 0
    for document in documents:
        text = document[:-1][:window]
        style = style_of(text)
        unit = begun.setdefault(style, Unit(kind, style, []))
        text = text[: min(window - unit.size, budget - size)]
        unit.texts.append(text)
        size += len(text)
        if unit.size == window:
            full.append(begun.pop(style))
        if size == budget:
            break
    rest = [unit for unit in begun.values() if unit.size >= window / 2]
    return full + rest or list(begun.values())


@torch.inference_mode()
def follow(model: Transformer, read: Sequence[Unit]) -> Routes:
    """Read every unit as a row of its own, its texts apart from each other, and listen to the routers."""
    heard: dict[nn.Module, list[Tensor]] = {router: [] for router in model.routers}
    ears = [router.register_forward_hook(_listener(rows)) for router, rows in heard.items()]
    inputs_BT, texts_BT, owners_BT = _rows(read)
    device = model.norm.weight.device
    try:
        for inputs, texts in zip(inputs_BT.split(ROWS), texts_BT.split(ROWS), strict=True):
            model(inputs.to(device), mask=Documents(texts.to(device)))
    finally:
        for ear in ears:
            ear.remove()
    used = {
        router: torch.cat(rows) for router, rows in heard.items() if rows
    }  # others only serve to look further ahead
    kept_N = owners_BT.flatten() != NO_UNIT
    nothing = torch.zeros(0, len(kept_N), 1, dtype=torch.int64)
    chosen_LNK = torch.stack(list(used.values())) if used else nothing
    return Routes(
        inputs_BT.flatten()[kept_N].numpy(),
        owners_BT.flatten()[kept_N].numpy(),
        chosen_LNK[:, kept_N].numpy(),
        model.config.n_routed_experts,
        bias_ranges(used),
    )


def _listener(rows: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], tuple[Tensor, Tensor]], None]:
    """A hook that keeps the second thing a router returns: expert numbers (N, K)."""

    def listen(_: nn.Module, __: tuple[Tensor, ...], found: tuple[Tensor, Tensor]) -> None:
        rows.append(found[1].cpu())

    return listen


def _rows(read: Sequence[Unit]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, text numbers and unit numbers, each (B, T); a row that is not full ends in tokens of no unit."""
    width = max((unit.size for unit in read), default=1)
    inputs, texts = torch.zeros(len(read), width, dtype=torch.int64), torch.zeros(len(read), width, dtype=torch.int64)
    owners = torch.full((len(read), width), NO_UNIT)
    for row, unit in enumerate(read):
        ends = list(itertools.accumulate(map(len, unit.texts)))
        for number, (end, text) in enumerate(zip(ends, unit.texts, strict=True), start=1):
            inputs[row, end - len(text) : end] = torch.from_numpy(text)
            texts[row, end - len(text) : end] = number
        owners[row, : unit.size] = row
    return inputs, texts, owners
