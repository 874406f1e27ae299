"""Bytes of any rank of a layout, term by term.

FSDP shards every weight over dp x cp x tp (experts: over ep x edp), in float32, with gradient and optimizer's states.
With a pipeline the gathered weights and the unsharded sums of gradients stay for the whole step, since weights that
come and go between micro-batches give wrong gradients where the backward is split; without one, two layers of them live
at a time.
"""

import dataclasses
import functools

from yatsude.plan.activations import in_passing, kept
from yatsude.plan.job import WIDTH, Job, micro_batches, tokens
from yatsude.plan.products import products
from yatsude.spec.config import ModelConfig
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.pieces import Held, Kind, Piece, held, pieces

__all__ = [
    "FRAGMENTED",
    "FRAMEWORK",
    "Weights",
    "by_kind",
    "floor",
    "in_flight",
    "parts",
    "peak",
    "rank_memory",
    "stays_gathered",
    "waiting",
    "weights",
]

GATHERED = 2
"""Bytes of a gathered weight, and of what a product gives: bf16."""
FRAMEWORK = 3 * 2**30
"""Driver, kernels, buffers of the communicators: an assumption."""
FRAGMENTED = 0.08
"""Of all else: what an allocator holds and nobody uses; it was seen at 0.06 to 0.16 over what tensors take."""
CHUNK = 512
"""Tokens whose logits live at a time."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters of a rank."""

    sharded: float
    """Of which it keeps master, gradient and optimizer."""
    gathered: float
    """That it computes with."""
    matrices: float
    """Sharded ones that Muon updates."""
    layer: float
    """Gathered, of its largest layer."""


@functools.lru_cache(maxsize=256)
def by_kind(config: ModelConfig) -> dict[Kind, Piece]:
    """One piece of each kind: layers of a kind are alike."""
    return {piece.kind: piece for piece in pieces(config)}


def parts(config: ModelConfig, mine: Held) -> list[tuple[Kind, int]]:
    """Pieces of a rank, by kind. The last stage needs the embedding again where layers predict further ahead."""
    ahead = config.num_nextn_predict_layers if mine.last else 0
    copies = int(mine.last and mine.apart and (ahead > 0 or config.tie_word_embeddings))
    found: list[tuple[Kind, int]] = [
        ("embedding", int(mine.first) + copies),
        ("dense", mine.dense),
        ("mixture", mine.mixtures),
        ("head", int(mine.last)),
        ("ahead", ahead),
    ]
    return [(kind, count) for kind, count in found if count]


def weights(config: ModelConfig, layout: ParallelSettings, mine: Held) -> Weights:
    """Parameters of a rank that holds `mine`: (cut + whole) / (dp·cp·tp) + experts / (ep·edp)."""
    return _weights(config, mine, layout.tp, layout.dp * layout.cp, layout.ep)


@functools.lru_cache(maxsize=65536)
def _weights(config: ModelConfig, mine: Held, tp: int, ranks: int, ep: int) -> Weights:
    known, edp = by_kind(config), ranks * tp // ep
    sharded = gathered = matrices = layer = 0.0
    for kind, count in parts(config, mine):
        piece = known[kind]
        common, experts = piece.cut / tp + piece.whole, piece.experts / ep
        sharded += count * ((piece.cut + piece.whole) / (ranks * tp) + experts / edp)
        gathered += count * (common + experts)
        matrices += count * piece.matrices / (ranks * tp)
        layer = max(layer, common + experts)
    return Weights(sharded, gathered, matrices, layer)


def stays_gathered(layout: ParallelSettings) -> bool:
    """Whether weights stay gathered, and gradients unsharded, from the first micro-batch of a step to the last."""
    return layout.pp > 1


def in_flight(layout: ParallelSettings, rank: int) -> float:
    """Micro-batches whose activations pipeline rank `rank` holds at once, in units of all its stages.

    1F1B: p - r. Interleaved, with v stages a rank (arXiv 2104.04473): 2(p - r - 1) + (v - 1)p + 1 of its stages; split
    backward keeps r more for the weights' gradients: p. ZBV (arXiv 2405.15362): p. DualPipeV: p + 1/2.
    """
    p, v, n = layout.pp, layout.stages_per_rank, micro_batches(layout)
    if p == 1:
        return 1.0
    stages = {
        "1f1b": p - rank,
        "interleaved": 2 * (p - rank - 1) + (v - 1) * p + 1,
        "zero-bubble": v * p,
        "zbv": 2 * p,
        "dualpipev": 2 * p + 1,
    }[layout.schedule]
    return min(stages, n * v) / v


def unfinished(layout: ParallelSettings, rank: int) -> float:
    """Stages whose gradients of weights still wait where the backward is split; what was computed again waits too.

    As PyTorch orders them: one more from rank to rank, in ZBV two.
    """
    if not layout.splits_backward:
        return 0.0
    return min(2 * rank + 1 if layout.schedule == "zbv" else rank + 1, micro_batches(layout) * layout.stages_per_rank)


def rank_memory(job: Job, layout: ParallelSettings, rank: int) -> dict[str, float]:
    """Peak bytes of pipeline rank `rank` by name; their sum is what the accelerator must hold."""
    mine = held(job.config, layout)[rank]
    found = _state(job, layout, mine) | _passing(job, layout, mine, rank)
    return found | {"framework": float(FRAMEWORK), "fragmented": FRAGMENTED * sum(found.values())}


def floor(job: Job, layout: ParallelSettings) -> float:
    """Bytes that the fullest rank needs whatever it recomputes or offloads."""
    away = dataclasses.replace(layout, offload=True)
    return max(sum(_state(job, away, mine).values()) for mine in set(held(job.config, layout))) + FRAMEWORK


def waiting(job: Job, layout: ParallelSettings) -> float:
    """Bytes of the fullest rank that wait in the memory of the CPU: weights, gradients and optimizer, if offloaded."""
    if not layout.offload:
        return 0.0
    holders = set(held(job.config, layout))
    return max(sum(_sharded(job, weights(job.config, layout, mine)).values()) for mine in holders)


def peak(job: Job, layout: ParallelSettings) -> tuple[int, dict[str, float]]:
    """The pipeline rank that needs most, and its bytes; of ranks that hold the same, first and last are looked at."""
    holders = held(job.config, layout)
    seen: dict[Held, list[int]] = {}
    for rank, mine in enumerate(holders):
        seen[mine] = [seen[mine][0], rank] if mine in seen else [rank]
    found = {rank: rank_memory(job, layout, rank) for ranks in seen.values() for rank in ranks}
    worst = max(found, key=lambda rank: sum(found[rank].values()))
    return worst, found[worst]


def _state(job: Job, layout: ParallelSettings, mine: Held) -> dict[str, float]:
    """What lives through the step."""
    own = weights(job.config, layout, mine)
    whole = stays_gathered(layout)
    layers = 2 * own.layer
    copied = own.gathered if whole else min(layers, own.gathered)
    found = _sharded(job, own)
    if layout.offload:
        found = dict.fromkeys(found, 0.0)
    return found | {
        "gathered weights": GATHERED * copied,
        "unsharded gradients": (WIDTH[job.gradients] if whole else GATHERED) * copied,
    }


def _sharded(job: Job, own: Weights) -> dict[str, float]:
    """Master weights, their gradients, and two states of the optimizer; Muon has one of the matrices."""
    states = 2 * own.sharded - (own.matrices if job.optimizer == "muon" else 0.0)
    return {
        "weights": 4 * own.sharded,
        "gradients": WIDTH[job.gradients] * own.sharded,
        "optimizer": WIDTH[job.states] * states,
    }


def _passing(job: Job, layout: ParallelSettings, mine: Held, rank: int) -> dict[str, float]:
    """What comes and goes with micro-batches."""
    counted, flying = parts(job.config, mine), in_flight(layout, rank)
    held_now = sum(count * kept(job, layout, kind, layout.recompute) for kind, count in counted)
    found = {
        "activations": flying * held_now,
        "one layer at work": max((_at_work(job, layout, kind) for kind, _ in counted), default=0.0),
    }
    flat = _flat(job, layout, mine) - (flying - 1) * held_now
    found["flat buffers"] = max(flat, 0.0)
    waiting = unfinished(layout, rank) / layout.stages_per_rank
    if waiting:
        whole = sum(count * kept(job, layout, kind, "none") for kind, count in counted)
        results = sum(count * _results(job, layout, kind) for kind, count in counted if kind != "head")
        found |= {"computed again": waiting * (whole - held_now), "gradients that wait": waiting * results}
    if mine.last:
        t, table = tokens(job, layout), job.config.vocab_size
        own = GATHERED * job.config.hidden_size * (table + t)
        found["logits"] = own + 6 * min(CHUNK, t) * table
    return found


def _flat(job: Job, layout: ParallelSettings, mine: Held) -> float:
    """Bytes of FSDP's copies of its largest layer, as it is scattered, and without a pipeline the next one gathered.

    With one, that is when the last micro-batch goes back, and no other is in flight.
    """
    if layout.shard_ranks == 1:
        return 0.0
    width = WIDTH[job.gradients] + (0 if stays_gathered(layout) else GATHERED)
    return width * weights(job.config, layout, mine).layer


def _results(job: Job, layout: ParallelSettings, kind: Kind) -> float:
    """Bytes of what the products of a layer give: of their gradients too, which those of the weights are made of."""
    own = (product for product in products(job, layout, kind) if product.outer != job.classes)
    return sum(GATHERED * product.rows * product.outer for product in own)


def _at_work(job: Job, layout: ParallelSettings, kind: Kind) -> float:
    again = 0.0 if layout.recompute == "none" else kept(job, layout, kind, "none")
    return again + in_passing(job, layout, kind)
