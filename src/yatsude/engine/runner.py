"""Runs the model over the cache: a prompt in pieces, then one token for every row at a time."""

import torch
from torch import Tensor

from yatsude.engine.answer import Answer
from yatsude.engine.cache import Memory
from yatsude.engine.scheduler import Batch
from yatsude.model.transformer import Transformer

__all__ = ["Runner"]


class Runner:
    """A model, its cache, and the device both are on. Shapes: B rows, V vocabulary."""

    def __init__(self, model: Transformer, *, max_rows: int, context: int, prefill_tokens: int) -> None:
        weight = model.lm_head.weight
        self.model, self.prefill_tokens, self.device = model.eval(), prefill_tokens, weight.device
        self.memory = Memory(model.config, rows=max_rows, tokens=context, dtype=weight.dtype, device=weight.device)

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """Scores of the next token, shape (B, V)."""
        return self._prefill(batch.answers[0], batch.first) if batch.prefill else self._decode(batch.answers)

    def _prefill(self, answer: Answer, row: int) -> Tensor:
        self.memory.lengths[row] = 0
        hidden_BTD = self.forward([answer.prompt[: self.prefill_tokens]], row)
        for start in range(self.prefill_tokens, len(answer.prompt), self.prefill_tokens):
            if answer.cancelled:
                break
            hidden_BTD = self.forward([answer.prompt[start : start + self.prefill_tokens]], row)
        return self.model.logits(hidden_BTD[:, -1])

    def _decode(self, answers: list[Answer]) -> Tensor:
        return self.model.logits(self.forward([[answer.generated[-1]] for answer in answers], 0)[:, -1])

    def forward(self, tokens: list[list[int]], row: int) -> Tensor:
        """Add equally many tokens to each row from `row` on; hidden states (B, T, D) come back."""
        window = self.memory.window(row, len(tokens), len(tokens[0]))
        tokens_BT = torch.tensor(tokens, device=self.device)
        hidden_BTD: Tensor = self.model(
            tokens_BT, positions_BT=window.positions_BT, mask_BTS=window.mask_BTS, cache=window
        )
        window.commit()
        return hidden_BTD
