"""Some layers of a model on one rank: a stage of a pipeline, or all of it.

Shapes: B sequences, T tokens of this rank, S tokens of the sequences, P layers of multi-token prediction.
"""

import torch
from torch import Tensor, nn

from yatsude.model.documents import Documents
from yatsude.model.loss import cross_entropy
from yatsude.model.transformer import Transformer
from yatsude.parallel.context import Context
from yatsude.spec.stored import EMBEDDING

__all__ = ["Stage"]


class Stage(nn.Module):
    """Stage `number` of `stages`: some layers; the first stage has the embedding, the last one norm, head and loss."""

    def __init__(self, model: Transformer, layers: range, number: int, stages: int, ahead_weight: float) -> None:
        super().__init__()
        self.layers, self.ahead_weight = layers, ahead_weight
        self.is_first, self.is_last = number == 0, number == stages - 1
        for other in set(range(model.config.num_hidden_layers)) - set(layers):
            model.layers[other] = nn.Identity()
        twice = model.config.tie_word_embeddings or len(model.mtp) > 0
        if not self.is_last:
            model.norm, model.mtp, model.lm_head = nn.Identity(), nn.ModuleList(), nn.Identity()  # type: ignore[assignment]
        self.repeats = self.is_last and not self.is_first and twice
        """Whether the embedding of the first stage is here a second time."""
        if not self.is_first and not self.repeats:
            model.embed_tokens = nn.Identity()  # type: ignore[assignment]
        self.model = model
        self.context: Context
        """Which tokens this rank has; set before the first step."""
        self.scale = 1.0
        """By which losses are multiplied: 1 over the counted tokens of the whole step."""
        self.loss = torch.zeros((), dtype=torch.float64)
        """Sum of the main losses since it was last set to 0."""

    def forward(
        self,
        x: Tensor,
        *,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        documents_BS: Tensor,
        following_BPT: Tensor,
        later_BPT: Tensor,
    ) -> Tensor:
        """Hidden states for the next stage (B, T, D), or the loss; `x` are those of the stage before, or the tokens."""
        mask = Documents(documents_BS, self.context.queries_T)
        rotations = self.model.rotary(self.context.queries_T[None])  # attention alone asks for them
        if self.is_first:
            x = self.model.embed_tokens(tokens_BT)
        for number in self.layers:
            x = self.model.layers[number](x, rotations, mask, self.context.keys)
        if not self.is_last:
            return x.clone()  # schedules detach it in place, which a view does not allow
        hidden = self.model.norm(x)
        loss = total = self._loss(hidden, targets_BT, self.scale)
        self.loss += loss.detach()
        for number, layer in enumerate(self.model.mtp):
            embedded = self.model.embed_tokens(following_BPT[:, number])
            hidden = layer(hidden, embedded, rotations, mask, self.context.keys)
            weight = self.ahead_weight / len(self.model.mtp)
            total = total + self._loss(hidden, later_BPT[:, number], self.scale * weight)
        return total

    def allocate(self, weights: str, buffers: str) -> None:
        """Give weights that are shapes memory on a device; routers' biases and counts become 0 on theirs."""
        self.to_empty(device=weights)
        if self.model.config.tie_word_embeddings and self.is_last:
            self.model.lm_head.weight = self.model.embed_tokens.weight
        for module in self.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.zeros_like(buffer, device=buffers))

    def is_copy(self, name: str) -> bool:
        """Whether a weight of the model is counted on another stage."""
        return self.repeats and name == EMBEDDING

    def _loss(self, hidden: Tensor, targets: Tensor, scale: float) -> Tensor:
        return cross_entropy(hidden.flatten(0, 1), self.model.lm_head.weight, targets.flatten(), scale)
