"""Attention and dense layers cut over ranks: heads and columns of the first products, rows of the last.

Between these parts each rank has a part of every sequence (Korthikanti et al. 2022, arXiv 2205.05198): it is joined
before them, and what they give is added up and cut again. Norms, routers, experts, embedding and head see that part
alone; their weights are whole, and FSDP adds their gradients up over these ranks as over any that see other tokens.
"""

from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from yatsude.errors import RecipeError
from yatsude.model.block import Block
from yatsude.model.gqa import GroupedAttention
from yatsude.model.mla import LatentAttention
from yatsude.model.swiglu import SwiGLU
from yatsude.parallel.collectives import gathered, scattered
from yatsude.parallel.place import Cut, keep

__all__ = ["cut"]

SEQUENCE = 1
"""Dimension of the tokens in (B, T, D)."""
COLUMNS = ("q_proj", "q_b_proj", "kv_b_proj", "k_proj", "v_proj")
"""Products whose results are by heads."""


def cut(block: Block, mesh: DeviceMesh) -> list[list[nn.Module]]:
    """Keep this rank's heads and columns of a layer; the modules that are cut come back, those of a part together."""
    if mesh.size() == 1:
        return []
    parts = [_attention(block.self_attn, mesh)]
    if isinstance(block.mlp, SwiGLU):
        parts.append(_dense(block.mlp, mesh))
    return parts


def _attention(part: LatentAttention | GroupedAttention, mesh: DeviceMesh) -> list[nn.Module]:
    heads = min(part.config.num_attention_heads, part.config.num_key_value_heads or part.config.num_attention_heads)
    if heads % mesh.size():
        raise RecipeError(f"parallel.tp = {mesh.size()}: expected a divisor of the {heads} heads of keys and values")
    found = [module for name, module in part.named_children() if name in COLUMNS]
    for module in found:
        _keep(module, "weight", 0, 1, mesh)
        _keep(module, "bias", 0, 1, mesh)
    _keep(part.o_proj, "weight", 1, 1, mesh)
    part.register_forward_pre_hook(_joined(mesh))
    part.register_forward_hook(_added_up(mesh))
    return [*found, part.o_proj]


def _dense(part: SwiGLU, mesh: DeviceMesh) -> list[nn.Module]:
    width = part.down_proj.weight.shape[1]
    if width % mesh.size():
        raise RecipeError(f"parallel.tp = {mesh.size()}: expected a divisor of the width {width} of dense layers")
    _keep(part.gate_up_proj, "weight", 0, 2, mesh)
    _keep(part.down_proj, "weight", 1, 1, mesh)
    part.register_forward_pre_hook(_joined(mesh))
    part.register_forward_hook(_added_up(mesh))
    return [part.gate_up_proj, part.down_proj]


def _keep(module: nn.Module, name: str, dim: int, halves: int, mesh: DeviceMesh) -> None:
    """Keep this rank's share of a weight along a dimension, of each of the `halves` that lie fused in it."""
    if getattr(module, name, None) is not None:
        keep(module, name, Cut(dim, halves, mesh.get_local_rank(), mesh.size()))


def _joined(mesh: DeviceMesh) -> Any:
    """Before a part: the tokens of all its ranks."""
    return lambda module, args: (gathered(args[0], SEQUENCE, mesh), *args[1:])


def _added_up(mesh: DeviceMesh) -> Any:
    """After a part: the sum over its ranks, of this rank's tokens."""
    return lambda module, args, out: scattered(out, SEQUENCE, mesh)
