"""One layer: attention, then a dense feed-forward part or the mixture of experts, each after a norm and added back."""

from typing import Any

from torch import Tensor, nn

from yatsude.model.attention import Cache, Mask
from yatsude.model.dispatch import Dispatcher, LocalDispatcher
from yatsude.model.experts import Experts
from yatsude.model.gqa import GroupedAttention
from yatsude.model.mla import LatentAttention
from yatsude.model.norm import RMSNorm
from yatsude.model.router import Router
from yatsude.model.swiglu import SwiGLU
from yatsude.spec.config import ModelConfig

__all__ = ["Block", "Mixture"]


class Mixture(nn.Module):
    """Routed experts, and the shared expert that every token passes if there is one (arXiv 2401.06066)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        shared = config.moe_intermediate_size * config.n_shared_experts
        self.shared_experts = SwiGLU(config.hidden_size, shared) if shared else None
        self.dispatcher: Dispatcher[Any] = LocalDispatcher()

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Map (B, T, D) to the same shape."""
        weights_NK, chosen_NK = self.gate(x_BTD)
        x_ND = x_BTD.flatten(0, 1)
        sent, route = self.dispatcher.dispatch(x_ND, weights_NK, chosen_NK, len(self.gate.load))
        shared_BTD = None if self.shared_experts is None else self.shared_experts(x_BTD)  # while rows travel
        rows_RD = self.dispatcher.receive(sent, route)
        routed_BTD = self.dispatcher.combine(self.experts(rows_RD, route.counts_E), route).view_as(x_BTD)
        return routed_BTD if shared_BTD is None else routed_BTD + shared_BTD


class Block(nn.Module):
    """Layer number `layer` of the model."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = LatentAttention(config, layer) if config.kv_lora_rank else GroupedAttention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mixture(config) if config.is_moe(layer) else SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor, rotations: Tensor, mask: Mask, cache: Cache | None = None) -> Tensor:
        """Map (B, T, D) to the same shape; `mask` as in the attention."""
        x = x + self.self_attn(self.input_layernorm(x), rotations, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))
