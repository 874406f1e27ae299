"""The pieces of a model that a pipeline deals out, with the parameters that each way of cutting divides. No torch."""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from typing import Literal

from yatsude.spec.config import ModelConfig
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.stored import EMBEDDING, tensors

__all__ = ["Held", "Kind", "Piece", "held", "layers_of", "pieces"]

Kind = Literal["embedding", "dense", "mixture", "head", "ahead"]
"""`head` with the last norm; `ahead`: a layer of multi-token prediction."""
CUT_BY_TENSOR = (
    ".q_proj.", ".k_proj.", ".v_proj.", ".q_b_proj.", ".kv_b_proj.", ".o_proj.",
    ".mlp.gate_up_proj.", ".mlp.down_proj.",
)  # fmt: skip
"""What tensor parallelism cuts: heads, and widths of dense layers. All else stays whole."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """Parameters of one piece, by what divides them."""

    kind: Kind
    cut: int = 0
    """Cut by tensor parallelism."""
    whole: int = 0
    """Not cut by it."""
    experts: int = 0
    """Of all routed experts, which expert parallelism deals out."""
    matrices: int = 0
    """Parameters that Muon updates: those of the layers' matrices, routers aside."""
    orthogonal_flops: int = 0
    """FLOPs of one Newton-Schulz step on all those matrices: 4·r²·c + 2·r³ where r ≤ c."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.cut + self.whole + self.experts


@functools.lru_cache(maxsize=64)
def pieces(config: ModelConfig) -> tuple[Piece, ...]:
    """Embedding, layers, head, layers of multi-token prediction; equal in sum to `counts.count`, total and mtp."""
    found: dict[str, Counter[str]] = {}
    for name, shape in tensors(config).items():
        if name.endswith("e_score_correction_bias"):
            continue
        sums = found.setdefault(_place(name), Counter())
        sums[_divided(name)] += math.prod(shape)
        if len(shape) > 1 and name.startswith(("layers.", "mtp.")) and ".mlp.gate." not in name:
            sums["matrices"] += math.prod(shape)
            sums["orthogonal_flops"] += _newton_schulz(name, shape)
    found.setdefault("head", Counter())
    return tuple(Piece(kind=_kind(config, place), **sums) for place, sums in found.items())


@dataclasses.dataclass(frozen=True)
class Held:
    """What one pipeline rank holds: layers by kind, and whether the model begins or ends there."""

    dense: int
    mixtures: int
    first: bool
    last: bool
    apart: bool
    """Whether the last stage is another one than the first, be it of the same rank."""


def layers_of(config: ModelConfig, layout: ParallelSettings) -> tuple[range, ...]:
    """Layers of each stage of the pipeline, first to last: every rank gets about the same arithmetic.

    The head counts as the layers whose arithmetic it has, rounded down, and a layer of multi-token prediction as one
    layer and one head; both lie on the last stage, which may be left without another layer.

    >>> from yatsude.spec.presets import preset
    >>> [len(layers) for layers in layers_of(preset("700b"), ParallelSettings(pp=8, dp=2))]
    [8, 8, 8, 8, 8, 8, 8, 5]
    """
    head = config.vocab_size * config.hidden_size // _arithmetic(config)
    ends = head + config.num_nextn_predict_layers * (1 + head)
    return _even(config.num_hidden_layers, layout.pp, layout.stages, _v_shaped(layout), ends)


def held(config: ModelConfig, layout: ParallelSettings) -> tuple[Held, ...]:
    """What each pipeline rank holds: stage r and every pp-th after it, or in a V, r and the r-th from the end."""
    return _held(layers_of(config, layout), config.first_k_dense_replace, layout.pp, _v_shaped(layout))


@functools.lru_cache(maxsize=4096)
def _even(layers: int, ranks: int, stages: int, v_shaped: bool, ends: int) -> tuple[range, ...]:
    """Hand out one layer after the other, each to the rank with the least."""
    given = [int(stage < stages - 1 and stage < layers) for stage in range(stages)]
    owner = [
        rank for stage in range(stages) for rank in range(ranks) if stage in _stages(rank, ranks, stages, v_shaped)
    ]
    loads = [sum(given[stage] for stage in range(stages) if owner[stage] == rank) for rank in range(ranks)]
    loads[owner[-1]] += ends
    for _ in range(layers - sum(given)):
        stage = min(range(stages), key=lambda s: (loads[owner[s]], given[s], s))
        given[stage] += 1
        loads[owner[stage]] += 1
    starts = [sum(given[:stage]) for stage in range(stages + 1)]
    return tuple(range(start, stop) for start, stop in itertools.pairwise(starts))


@functools.lru_cache(maxsize=4096)
def _held(cut: tuple[range, ...], dense: int, ranks: int, v_shaped: bool) -> tuple[Held, ...]:
    found = []
    for rank in range(ranks):
        mine = _stages(rank, ranks, len(cut), v_shaped)
        numbers = [layer for stage in mine for layer in cut[stage]]
        low = sum(layer < dense for layer in numbers)
        found.append(Held(low, len(numbers) - low, 0 in mine, len(cut) - 1 in mine, len(cut) > 1))
    return tuple(found)


def _stages(rank: int, ranks: int, stages: int, v_shaped: bool) -> tuple[int, ...]:
    return (rank, stages - 1 - rank) if v_shaped else tuple(range(rank, stages, ranks))


def _v_shaped(layout: ParallelSettings) -> bool:
    return layout.pp > 1 and layout.schedule in ("zbv", "dualpipev")


@functools.lru_cache(maxsize=64)
def _arithmetic(config: ModelConfig) -> int:
    """Parameters of the upmost layer that one token is multiplied by."""
    kind = "mixture" if config.moe_layers else "dense"
    piece = next(piece for piece in pieces(config) if piece.kind == kind)
    return piece.cut + piece.whole + piece.experts * config.num_experts_per_tok // max(config.n_routed_experts, 1)


def _place(name: str) -> str:
    if name.startswith(("layers.", "mtp.")):
        return ".".join(name.split(".")[:2])
    return "embedding" if name == EMBEDDING else "head"


def _kind(config: ModelConfig, place: str) -> Kind:
    if place in ("embedding", "head"):
        return "embedding" if place == "embedding" else "head"
    if place.startswith("mtp."):
        return "ahead"
    return "mixture" if config.is_moe(int(place.split(".")[1])) else "dense"


def _divided(name: str) -> str:
    if ".experts." in name:
        return "experts"
    return "cut" if any(word in f".{name}" for word in CUT_BY_TENSOR) else "whole"


def _newton_schulz(name: str, shape: tuple[int, ...]) -> int:
    *stack, rows, columns = shape
    halves = 2 if "gate_up_proj" in name else 1
    low, high = sorted((rows // halves, columns))
    return math.prod(stack) * halves * (4 * low * low * high + 2 * low**3)
