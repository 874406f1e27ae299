"""What every collective of a rank moves in a step: calls, bytes, and the link they go over.

`bytes` are those of the whole buffer, as a tracker of collectives counts them: the result of an all-gather, the input
of a reduce-scatter, all rows of an all-to-all. `link` and `network` are what the rank itself sends over each.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from yatsude.plan.job import WIDTH, Job, micro_batches, remembered, tokens
from yatsude.plan.memory import by_kind, parts, stays_gathered, weights
from yatsude.plan.mesh import Group, group
from yatsude.plan.rates import Rates
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.pieces import Held, Kind, held

__all__ = ["Flow", "layer_flows", "seconds", "shard_flows", "traffic"]

B = 2
"""Bytes of bf16, in which activations and gathered weights travel."""

BACKWARD = {"all-gather": "reduce-scatter", "reduce-scatter": "all-gather", "all-to-all": "all-to-all"}
"""What the gradient of an exchange is."""


@dataclasses.dataclass(frozen=True)
class Flow:
    """One kind of collective along one axis."""

    axis: str
    kind: str
    calls: float
    bytes: float
    link: float
    network: float

    def times(self, factor: float) -> "Flow":
        """That often."""
        numbers = (self.calls, self.bytes, self.link, self.network)
        return Flow(self.axis, self.kind, *(factor * number for number in numbers))


def seconds(flow: Flow, rates: Rates) -> float:
    """Time of a flow by itself: the slower of its two links, and the latency of its calls."""
    return max(flow.link / rates.link, flow.network / rates.network) + flow.calls * rates.latency


def traffic(job: Job, layout: ParallelSettings, rank: int) -> list[Flow]:
    """All collectives of a step of pipeline rank `rank`, what is moved by nobody left out."""
    mine = held(job.config, layout)[rank]
    found = list(shard_flows(job, layout, mine))
    for kind, count in parts(job.config, mine):
        found += _passes(layout, kind, layer_flows(job, layout, kind), count * micro_batches(layout))
    found += _pipeline(job, layout, rank)
    found += _counts(job, layout, mine)
    merged: dict[tuple[str, str], Flow] = {}
    for flow in found:
        if flow.bytes and flow.calls:
            key = (flow.axis, flow.kind)
            merged[key] = _sum(merged[key], flow) if key in merged else flow
    return list(merged.values())


def _passes(layout: ParallelSettings, kind: Kind, forward: Iterable[Flow], times: int) -> Iterator[Flow]:
    """Those of a layer forward, again, and backward, where the other way of a gather is a scatter."""
    again = 1.0 if layout.recompute == "full" else 0.0
    for flow in forward:
        # what is computed again stops before the second scatter of a dense layer
        repeated = again / 2 if kind == "dense" and flow.kind == "reduce-scatter" else again
        yield flow.times(times * (1 + repeated))
        yield dataclasses.replace(flow, kind=BACKWARD[flow.kind]).times(times)


@remembered
def layer_flows(job: Job, layout: ParallelSettings, kind: Kind) -> list[Flow]:
    """Collectives of one layer and micro-batch, forward; backward sends as much the other way."""
    return list(_layer_flows(job, layout, kind))


def _layer_flows(job: Job, layout: ParallelSettings, kind: Kind) -> Iterator[Flow]:
    if kind in ("embedding", "head"):
        return
    config, t, node = job.config, tokens(job, layout), job.accelerator.node
    if layout.tp > 1:
        blocks = 2 if kind == "dense" else 1  # a mixture takes its tokens as they lie
        size = B * t * layout.tp * config.hidden_size
        for name in ("all-gather", "reduce-scatter"):
            yield Flow("tp", name, blocks, blocks * size, *_scaled(group(layout, "tp", node).gather(size), blocks))
    if layout.cp > 1:
        size = B * t * layout.tp * layout.cp * sum(config.cache_widths)
        yield Flow("cp", "all-gather", 1, size, *group(layout, "cp", node).gather(size))
    if kind != "dense" and layout.ep > 1:
        yield _exchange(job, layout, t)


def shard_flows(job: Job, layout: ParallelSettings, mine: Held) -> Iterator[Flow]:
    """Those of FSDP: gathers in bf16, gradients scattered, and summed over replicas; experts go over edp."""
    node, known = job.accelerator.node, by_kind(job.config)
    rounds = 1 if stays_gathered(layout) else micro_batches(layout)
    for axis, ranks in (("shard", group(layout, "shard", node)), ("edp", group(layout, "edp", node))):
        numbers = calls = 0.0
        for kind, count in parts(job.config, mine):
            piece = known[kind]
            own = piece.experts / layout.ep if axis == "edp" else piece.cut / layout.tp + piece.whole
            numbers, calls = numbers + count * own, calls + count * bool(own)
        if ranks.size > 1:
            gathers = rounds if stays_gathered(layout) else 2 * rounds  # again for the backward pass
            yield _moved(axis, "all-gather", ranks, B * numbers, calls).times(gathers)
            yield _moved(axis, "reduce-scatter", ranks, WIDTH[job.gradients] * numbers, calls).times(rounds)
    if layout.replicas > 1:
        size = WIDTH[job.gradients] * weights(job.config, layout, mine).sharded
        across = group(layout, "replicas", node)
        yield Flow("replicas", "all-reduce", rounds, rounds * size, *_scaled(across.gather(size), 2 * rounds))


def _moved(axis: str, kind: str, ranks: Group, size: float, calls: float) -> Flow:
    return Flow(axis, kind, calls, size, *ranks.gather(size))


def _exchange(job: Job, layout: ParallelSettings, t: float) -> Flow:
    """Rows to the experts and back; sent once a node, a token crosses the network for its nodes, not its experts."""
    config, ranks = job.config, group(layout, "ep", job.accelerator.node)
    rows = t * config.num_experts_per_tok
    width = (1 if job.precision == "fp8" and job.dispatch == "once-a-node" else B, B)
    size = rows * config.hidden_size * sum(width)
    link, network = ranks.exchange(size)
    if job.dispatch == "once-a-node" and ranks.nodes > 1:
        network *= _nodes_met(job, ranks) / config.num_experts_per_tok
        link = size * (ranks.local - 1) / ranks.local  # from the node's entrance to the expert
    sent = rows * config.hidden_size * (width[0] + width[1] * job.imbalance)  # all that came goes back
    return Flow("ep", "all-to-all", 2, sent, link * job.imbalance, network * job.imbalance)


def _nodes_met(job: Job, ranks: Group) -> float:
    """Nodes that one token's experts lie on: n·(1 - (1 - 1/n)^K) of n; n is limited by the router's groups."""
    config, nodes = job.config, float(ranks.nodes)
    if config.n_group > 1:
        nodes = min(nodes, max(config.topk_group * nodes / config.n_group, 1.0))
    return nodes * (1 - (1 - 1 / nodes) ** config.num_experts_per_tok)


def _pipeline(job: Job, layout: ParallelSettings, rank: int) -> Iterator[Flow]:
    """Hidden states to the next stage and gradients back: each boundary a send and a receive a micro-batch."""
    if layout.pp == 1:
        return
    mine = held(job.config, layout)[rank]
    across = layout.shard_ranks * layout.replicas >= job.accelerator.node
    size = B * tokens(job, layout) * job.config.hidden_size
    config = job.config
    ends = mine.first != mine.last and (config.num_nextn_predict_layers > 0 or config.tie_word_embeddings)
    if ends:  # first and last stage have the embedding, and add up its gradients
        table = WIDTH[job.gradients] * config.vocab_size * config.hidden_size / layout.shard_ranks
        yield Flow("pp", "all-reduce", 1, table, 0.0 if across else table, table if across else 0.0)
    sent = 2 * layout.stages_per_rank - (rank == 0) - (_last(layout) == rank)
    if layout.schedule in ("zbv", "dualpipev"):  # the turn of the V stays in its rank
        sent -= 2 * (rank == layout.pp - 1)
    calls = max(sent, 0) * micro_batches(layout)
    total = calls * size
    yield Flow("pp", "send", calls, total, 0.0 if across else total, total if across else 0.0)


def _last(layout: ParallelSettings) -> int:
    return 0 if layout.schedule in ("zbv", "dualpipev") else layout.pp - 1


def _counts(job: Job, layout: ParallelSettings, mine: Held) -> Iterator[Flow]:
    """Rows an expert, for the balance, and the norm of the gradient: small, but calls that wait for every rank."""
    mixtures = mine.mixtures + (job.config.num_nextn_predict_layers if mine.last and job.config.has_experts else 0)
    size = 8.0 * (mixtures * job.config.n_routed_experts + 1)
    if layout.ranks > 1:
        yield Flow("all", "all-reduce", mixtures + 2, size, size, size)


def _scaled(pair: tuple[float, float], factor: float) -> tuple[float, float]:
    return pair[0] * factor, pair[1] * factor


def _sum(one: Flow, other: Flow) -> Flow:
    numbers = zip(dataclasses.astuple(one)[2:], dataclasses.astuple(other)[2:], strict=True)
    return Flow(one.axis, one.kind, *(a + b for a, b in numbers))
