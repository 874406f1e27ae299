"""Which ranks of a layout talk to each other, and over which link.

Ranks are numbered in the order (pp, replicas, dp, cp, tp), the last fastest, or (pp, replicas, edp, ep) for experts,
and fill the nodes in that order; a group that is no larger than a node is taken to lie in one.
"""

import dataclasses

from yatsude.spec.parallel import ParallelSettings

__all__ = ["Group", "group"]


@dataclasses.dataclass(frozen=True)
class Group:
    """Ranks of one collective: how many, and how many of them share a node."""

    size: int
    local: int

    @property
    def nodes(self) -> int:
        """Nodes that the group spans."""
        return -(-self.size // self.local)

    def gather(self, total: float) -> tuple[float, float]:
        """Bytes that a rank sends over the (link, network) to gather `total` bytes: each node fetches the rest once."""
        return total * (self.local - 1) / self.local, total * (self.nodes - 1) / self.nodes / self.local

    def exchange(self, total: float) -> tuple[float, float]:
        """Bytes that a rank sends over the (link, network) of `total` that it deals out evenly to all."""
        return total * (self.local - 1) / self.size, total * (self.size - self.local) / self.size


def group(layout: ParallelSettings, axis: str, node: int) -> Group:
    """The group of a rank along `axis`: tp, cp, shard (dp x cp), ep, edp, replicas or pp; `node` ranks share a link."""
    shard = layout.shard_ranks
    stride, size = {
        "tp": (1, layout.tp),
        "cp": (layout.tp, layout.cp),
        "shard": (layout.tp, layout.dp * layout.cp),
        "ep": (1, layout.ep),
        "edp": (layout.ep, layout.edp),
        "replicas": (shard, layout.replicas),
        "pp": (shard * layout.replicas, layout.pp),
    }[axis]
    return Group(size, max(1, min(size, node // stride)))
