"""The whole model: embedding, layers, norm, head. It knows one device and nothing of meshes.

Shapes: B batch, T tokens, S keys, D hidden width, V vocabulary.
"""

import torch
from torch import Tensor, nn

from yatsude.errors import RequestError
from yatsude.model.attention import Cache, Mask
from yatsude.model.block import Block
from yatsude.model.mtp import MultiTokenLayer
from yatsude.model.norm import RMSNorm
from yatsude.model.rope import Rotary
from yatsude.model.router import Router
from yatsude.spec.config import ModelConfig

__all__ = ["Transformer"]


class Transformer(nn.Module):
    """A decoder, dense or a mixture. Weights are not initialised here: see `init` or load a checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.rotary = Rotary(config)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.mtp = nn.ModuleList(
            MultiTokenLayer(config, config.num_hidden_layers + number)
            for number in range(config.num_nextn_predict_layers)
        )

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask: Mask = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states after the last norm, shape (B, T, D); `logits` turns them into scores.

        `mask` is additive (B, T, S), 0 where a token may look and -inf elsewhere, or `Documents`; none means causal.
        With a `cache`, the T tokens follow those it holds: give their positions, and a mask over all S keys where rows
        hold unequally many.
        """
        if self.config.sliding_window and tokens_BT.shape[1] > self.config.sliding_window:
            raise RequestError(
                f"{tokens_BT.shape[1]} tokens: the model looks {self.config.sliding_window} back, and attention has no"
                " window here; give at most that"
            )
        rotations = self._rotations(tokens_BT, positions_BT)
        x = self.embed_tokens(tokens_BT)
        for layer in self.layers:
            x = layer(x, rotations, mask, cache)
        return self.norm(x)

    def ahead(
        self,
        number: int,
        hidden_BTD: Tensor,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask: Mask = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states that predict `number` + 2 tokens ahead, by layer `number` of multi-token prediction.

        `hidden_BTD` comes from `forward` (number 0) or from the layer before; `tokens_BT` are the tokens `number` + 1
        behind those. `logits` turns the result into scores; positions, mask and cache as in `forward`.
        """
        rotations = self._rotations(tokens_BT, positions_BT)
        return self.mtp[number](hidden_BTD, self.embed_tokens(tokens_BT), rotations, mask, cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary: (..., D) to (..., V)."""
        return self.lm_head(hidden)

    def _rotations(self, tokens_BT: Tensor, positions_BT: Tensor | None) -> Tensor:
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        return self.rotary(positions_BT)

    @property
    def routers(self) -> list[Router]:
        """The routers of the mixture layers, bottom to top, those of multi-token prediction last."""
        return [module for module in self.modules() if isinstance(module, Router)]
