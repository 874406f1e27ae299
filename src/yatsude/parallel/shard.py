"""FSDP over a stage (Zhao et al. 2023, arXiv 2304.11277; PyTorch's `fully_shard`): every weight once a replica.

One rule for all meshes: gradients are summed, never averaged. A loss is a sum over tokens divided once, by the number
of all tokens of the step, so no mesh has to know its size.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from yatsude.model.block import Block, Mixture
from yatsude.parallel.mesh import Mesh
from yatsude.parallel.stage import Stage

__all__ = ["blocks_of", "shard"]


def shard(stage: Stage, cut: Sequence[list[nn.Module]], mesh: Mesh, dtype: torch.dtype) -> None:
    """Cut the weights of a stage over its ranks; they are computed with in `dtype` and summed up in their own.

    `cut` are the modules that tensor parallelism has cut already.
    """
    master = next(stage.parameters()).dtype
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == master else dtype, reduce_dtype=master, cast_forward_inputs=False
    )
    settings = mesh.settings
    # a backward pass in two steps reads weights in both, and would find them gone after the first
    keep = settings.pp > 1

    def apply(module: nn.Module | list[nn.Module], on: DeviceMesh) -> None:
        offload = CPUOffloadPolicy() if settings.offload else OffloadPolicy()
        fully_shard(module, mesh=on, reshard_after_forward=not keep, mp_policy=policy, offload_policy=offload)

    for part in cut:
        apply(part, mesh.tensor)
    for block in blocks_of(stage):
        if isinstance(block.mlp, Mixture):
            apply(block.mlp.experts, mesh.expert)
        apply(block, mesh.shard)
    apply(stage, mesh.shard)
    for module in stage.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def blocks_of(stage: nn.Module) -> list[Block]:
    """The layers of a stage, those of multi-token prediction last."""
    return [module for module in stage.modules() if isinstance(module, Block)]
