"""The whole model: embedding, layers, norm, head. It knows one device and nothing of meshes.

Shapes: B batch, T tokens, S keys, D hidden width, V vocabulary.
"""

import torch
from torch import Tensor, nn

from yatsude.model.attention import LatentCache
from yatsude.model.block import Block
from yatsude.model.norm import RMSNorm
from yatsude.model.rope import Rotary
from yatsude.model.router import Router
from yatsude.spec.config import ModelConfig

__all__ = ["Transformer", "document_mask"]


class Transformer(nn.Module):
    """A decoder in the DeepSeek-V3 layout. Weights are not initialised here: see `init` or load a checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.rotary = Rotary(config.qk_rope_head_dim, config.rope_theta)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask_BTS: Tensor | None = None,
        cache: LatentCache | None = None,
    ) -> Tensor:
        """Hidden states after the last norm, shape (B, T, D); `logits` turns them into scores.

        `mask_BTS` is additive: 0 where a token may look, -inf elsewhere; none means causal. With a `cache`, the T
        tokens follow those it holds: give their positions, and a mask over all S keys where rows hold unequally many.
        """
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        rotations = self.rotary(positions_BT)
        x = self.embed_tokens(tokens_BT)
        for layer in self.layers:
            x = layer(x, rotations, mask_BTS, cache)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary: (..., D) to (..., V)."""
        return self.lm_head(hidden)

    @property
    def routers(self) -> list[Router]:
        """The routers of the mixture layers, bottom to top."""
        return [module for module in self.modules() if isinstance(module, Router)]


def document_mask(document_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask (B, T, T): causal, and a token sees only those that carry its document's number."""
    length = document_BT.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=document_BT.device).tril_()
    seen = causal & (document_BT[:, :, None] == document_BT[:, None, :])
    return torch.zeros(seen.shape, dtype=dtype, device=document_BT.device).masked_fill_(~seen, -torch.inf)
