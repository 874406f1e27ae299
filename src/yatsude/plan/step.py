"""How long a step takes: products, what moves through memory, what is communicated and not hidden, and the bubble.

A product of F FLOPs and b bytes takes F / rate + b / bandwidth, so that small ones fall below the rate by themselves.
Backward, the gradients of inputs and of weights cost a forward product each, attention 2.5 forwards, the rest two.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable

from yatsude.plan.activations import moved
from yatsude.plan.job import Job, micro_batches, remembered
from yatsude.plan.memory import by_kind, parts, stays_gathered, weights
from yatsude.plan.products import Product, again, attention_flops, products
from yatsude.plan.rates import Rates
from yatsude.plan.traffic import Flow, layer_flows, seconds, shard_flows
from yatsude.spec.counts import training_flops
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.pieces import Held, Kind, held

__all__ = ["Step", "bubble", "flops", "step"]

ATTENTION_BACKWARD = 2.5
"""Products of a fused attention's backward pass over those of its forward: five over two."""
KERNELS = {"embedding": 4, "dense": 45, "mixture": 200, "head": 30, "ahead": 240}
"""Of a forward pass: what a host must launch."""
INTERFERENCE = 0.15
"""Of hidden communication: it takes units and bandwidth from what it hides behind (20 of 132 multiprocessors in
DeepSeek-V3, arXiv 2412.19437, section 3.2.2)."""
NEWTON_SCHULZ = 3
"""Steps of Muon."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """Seconds of one layer, or of all of a rank, for one micro-batch."""

    forward: float = 0.0
    inputs: float = 0.0
    """Backward to inputs."""
    weights: float = 0.0
    """Backward to weights."""
    again: float = 0.0
    """Forward a second time, for full recomputation."""
    elements: float = 0.0
    """The memory-bound part of a forward pass."""
    exchange: float = 0.0
    """Rows to experts and back, one pass."""

    def plus(self, other: "Pass", times: int = 1) -> "Pass":
        """Both, the other that often."""
        return Pass(
            self.forward + times * other.forward,
            self.inputs + times * other.inputs,
            self.weights + times * other.weights,
            self.again + times * other.again,
            self.elements + times * other.elements,
            self.exchange + times * other.exchange,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """Seconds of one step, by what they are spent on, and what follows from their sum."""

    terms: dict[str, float]
    tokens_a_second: float
    """Of one accelerator."""
    utilisation: float
    """Share of the bf16 peak that the model's own arithmetic makes up (MFU)."""

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self.terms.values())


def step(job: Job, layout: ParallelSettings) -> Step:
    """Time of one step of this layout."""
    holders = Counter(held(job.config, layout))
    ranks = {mine: _rank_pass(job, layout, mine) for mine in holders}
    timed = {mine: _micro_batch(job, layout, one) for mine, one in ranks.items()}
    totals = {mine: sum(terms.values()) for mine, terms in timed.items()}
    mine = max(totals, key=lambda held_now: totals[held_now])
    terms = {name: micro_batches(layout) * value for name, value in timed[mine].items()}
    mean = sum(totals[one] * count for one, count in holders.items()) / layout.pp
    terms["bubble"] = bubble(layout, ranks[mine]) * mean / _compute(ranks[mine])
    terms |= _around(job, layout, mine, sum(terms.values()))
    total = sum(terms.values())
    speed = job.tokens / total / layout.ranks
    return Step(
        terms=terms,
        tokens_a_second=speed,
        utilisation=speed * training_flops(job.config, job.sequence) / job.accelerator.bf16,
    )


def flops(job: Job, layout: ParallelSettings, rank: int) -> float:
    """Arithmetic of a step of pipeline rank `rank`, what is computed again included; Muon's is left out."""
    found = 0.0
    for kind, count in parts(job.config, held(job.config, layout)[rank]):
        work = sum(product.flops for product in products(job, layout, kind))
        looks = attention_flops(job, layout) if kind not in ("embedding", "head") else 0.0
        repeated = sum(product.flops for product in again(job, layout, kind)) + looks
        more = {"none": 0.0, "selective": looks, "full": repeated}[layout.recompute]
        found += count * (3 * work + (1 + ATTENTION_BACKWARD) * looks + more)
    return micro_batches(layout) * found


def bubble(layout: ParallelSettings, one: Pass) -> float:
    """Seconds that a rank waits in a step, for the F, B and W of its micro-batches.

    1F1B (p-1)(F+B+W); interleaved a v-th of it (arXiv 2104.04473); split backward (p-1)(F+B-W)/v (ZB-H1, arXiv
    2401.10241); ZBV (p-1)(F+B-2W)/2 (arXiv 2405.15362); DualPipeV (p-1)(F+2B-W)/2 (DeepSeek's DualPipe repository).
    """
    p, v = layout.pp, layout.stages_per_rank
    forward, inputs, own = one.forward, one.inputs, one.weights
    waited = {
        "1f1b": forward + inputs + own,
        "interleaved": (forward + inputs + own) / v,
        "zero-bubble": (forward + inputs - own) / v,
        "zbv": (forward + inputs - 2 * own) / 2,
        "dualpipev": (forward + 2 * inputs - own) / 2,
    }[layout.schedule]
    return (p - 1) * max(waited, 0.0)


def _compute(one: Pass) -> float:
    return one.forward + one.inputs + one.weights


def _rank_pass(job: Job, layout: ParallelSettings, mine: Held) -> Pass:
    found = Pass()
    for kind, count in parts(job.config, mine):
        found = found.plus(_layer(job, layout, kind), count)
    more = {"none": 0.0, "selective": found.elements, "full": found.again}[layout.recompute]
    return dataclasses.replace(found, inputs=found.inputs + more)


@remembered
def _layer(job: Job, layout: ParallelSettings, kind: Kind) -> Pass:
    rates = job.rates
    work = sum(_seconds(product, rates, job) for product in products(job, layout, kind))
    looks = 0.0 if kind in ("embedding", "head") else attention_flops(job, layout) / rates.attention
    elements = moved(job, layout, kind) / rates.bandwidth
    flows = layer_flows(job, layout, kind)
    waits = sum(seconds(flow, rates) for flow in flows if flow.axis != "ep")
    launches = KERNELS[kind] * rates.launch
    forward = max(work + looks + elements, launches) + waits
    repeated = sum(_seconds(product, rates, job) for product in again(job, layout, kind))
    return Pass(
        forward=forward,
        inputs=max(work + ATTENTION_BACKWARD * looks + 2 * elements, launches) + waits,
        weights=max(work, launches),
        again=max(repeated + looks + elements, launches) + waits if repeated else 0.0,
        elements=0.0 if kind in ("embedding", "head") else elements,
        exchange=sum(seconds(flow, rates) for flow in flows if flow.axis == "ep"),
    )


def _seconds(product: Product, rates: Rates, job: Job) -> float:
    fast = rates.grouped if product.groups > 1 else rates.matrix
    narrow = 1 if job.precision == "fp8" else 2
    return product.flops / (fast if product.eight else rates.plain) + product.bytes(narrow) / rates.bandwidth


def _micro_batch(job: Job, layout: ParallelSettings, one: Pass) -> dict[str, float]:
    """Seconds of a rank for one micro-batch."""
    exchanged = one.exchange * (3 if layout.recompute == "full" else 2)
    compute = _compute(one)
    hidden = min(exchanged, compute) if job.overlap else 0.0
    return {"computing": compute, "exchange of rows": exchanged - hidden + INTERFERENCE * hidden}


def _around(job: Job, layout: ParallelSettings, mine: Held, busy: float) -> dict[str, float]:
    """What comes once a step: weights gathered and gradients scattered, the optimizer, stages that hand over."""
    flows = list(shard_flows(job, layout, mine))
    total = _all(flows, job.rates)
    hidden = 0.0 if stays_gathered(layout) else min(total, busy)
    return {"weights and gradients": total - hidden + INTERFERENCE * hidden, "optimizer": _optimizer(job, layout, mine)}


def _all(flows: Iterable[Flow], rates: Rates) -> float:
    return sum(seconds(flow, rates) for flow in flows)


def _optimizer(job: Job, layout: ParallelSettings, mine: Held) -> float:
    own, states = weights(job.config, layout, mine).sharded, 4 if job.states == "fp32" else 2
    moved_bytes = own * (4 * 3 + 2 * 2 * states)  # master read and written, gradient read, two states
    found = moved_bytes / job.rates.bandwidth
    if job.optimizer == "muon":
        known = by_kind(job.config)
        flops = sum(count * known[kind].orthogonal_flops for kind, count in parts(job.config, mine))
        found += NEWTON_SCHULZ * flops / layout.shard_ranks / job.rates.plain
    if layout.offload:  # all of that in the CPU's memory, and weights and gradients on their way, each time
        rounds = 1 if stays_gathered(layout) else 3 * micro_batches(layout)
        found += (moved_bytes + own * 4 * rounds) / job.rates.host
    return found
