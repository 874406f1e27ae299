"""The ranks of a job as grids: who shares weights, experts, sequences and stages with whom."""

import math

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from yatsude.errors import MachineError, RecipeError
from yatsude.spec.parallel import ParallelSettings

__all__ = ["Mesh", "device_type"]


def device_type() -> str:
    """What the ranks compute on: "cuda" where they talk by NCCL, else "cpu"."""
    return "cuda" if "nccl" in str(torch.distributed.get_backend_config()) else "cpu"


class Mesh:
    """Place of this rank in a job, and the groups that it talks to.

    Each weight of a stage lies once in every replica, cut over one of these meshes, one or two dimensions (the first
    is of replicas):

        shard      most weights: over all ranks of the stage that see different tokens, dp x cp x tp
        tensor     those cut by tensor parallelism already: over dp x cp
        expert     those of experts, dealt out over ep: over edp

    so the sum over a mesh of what its ranks found is always the whole gradient.
    """

    def __init__(self, settings: ParallelSettings) -> None:
        ranks, device = torch.distributed.get_world_size(), device_type()
        if ranks != settings.ranks:
            raise MachineError(
                f"{ranks} ranks are running, but parallel.pp x replicas x dp x cp x tp = {settings.pp} x"
                f" {settings.replicas} x {settings.dp} x {settings.cp} x {settings.tp} = {settings.ranks};"
                " start that many or change [parallel]"
            )
        if settings.offload and device == "cpu":
            raise RecipeError(
                "parallel.offload = true: weights wait on the CPU for a GPU, and there is none; leave it out"
            )
        self.settings, self.device = settings, device
        outer = (settings.pp, settings.replicas)
        stage = self._grid(("pp", "replicate", "shard"), *outer, settings.shard_ranks)
        tensor = self._grid(("pp", "replicate", "dpcp", "tp"), *outer, settings.dp * settings.cp, settings.tp)
        context = self._grid(("batch", "cp", "tp"), math.prod(outer) * settings.dp, settings.cp, settings.tp)
        expert = self._grid(("pp", "replicate", "edp", "ep"), *outer, settings.edp, settings.ep)
        replica = self._grid(("replicate", "whole"), settings.replicas, settings.pp * settings.shard_ranks, swap=outer)
        peers = self._grid(("pp", "peers"), settings.pp, settings.replicas * settings.shard_ranks)
        copies = settings.replicas > 1
        self.shard = stage["replicate", "shard"] if copies else stage["shard"]
        self.tensor = tensor["replicate", "dpcp"] if copies else tensor["dpcp"]
        self.expert = expert["replicate", "edp"] if copies else expert["edp"]
        self.tp, self.cp, self.ep, self.pp = tensor["tp"], context["cp"], expert["ep"], stage["pp"]
        self.whole = replica["whole"]
        """All ranks of one replica: together they hold every weight once."""
        self.peers = peers["peers"]
        """All ranks with the same layers."""
        self.everyone = self._grid(("all",), settings.ranks)
        self.ends = self._ends(stage.mesh)
        """The two ranks, this one among them, that hold the first and the last stage; none if one holds both."""
        place = {name: stage.get_local_rank(name) for name in ("pp", "replicate", "shard")}
        self.stage, self.replica = place["pp"], place["replicate"]
        self.leads = place["replicate"] == place["shard"] == 0
        """Whether this is the first of the ranks with the same layers."""
        self.batch = self.replica * settings.dp + place["shard"] // (settings.cp * settings.tp)
        """Which share of the sequences of a step this rank reads, of `settings.batch_ranks`."""

    def _ends(self, ranks: Tensor) -> ProcessGroup | None:
        if self.settings.pp == 1 or self.settings.is_v_shaped:
            return None
        pairs = torch.stack((ranks[0], ranks[-1]), -1).flatten(0, -2).tolist()
        mine, _ = torch.distributed.new_subgroups_by_enumeration(pairs)
        return mine

    def _grid(self, names: tuple[str, ...], *sizes: int, swap: tuple[int, int] | None = None) -> DeviceMesh:
        """All ranks as a grid; with `swap`, stages and replicas (the two outer dimensions) change places first."""
        ranks = torch.arange(self.settings.ranks)
        if swap:
            ranks = ranks.view(*swap, -1).transpose(0, 1)
        return DeviceMesh(self.device, ranks.reshape(sizes), mesh_dim_names=names)
