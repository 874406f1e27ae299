"""Runs the model over the cache: a prompt in pieces, then one token for every row at a time, or two.

With a layer of multi-token prediction a row may be fed a guess of the token after the last one. The model then scores
both; where it draws the guessed token itself, the second score counts too, and the step brought two tokens
(DeepSeek-V3, section 5.4.3; speculative decoding, arXiv 2211.17192). Answers are what they would be without: a guess
decides nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from yatsude.engine.answer import Answer
from yatsude.engine.cache import Memory, Window
from yatsude.engine.scheduler import Batch
from yatsude.model.transformer import Transformer
from yatsude.progress import say

__all__ = ["Runner"]


class Runner:
    """A model, its cache, and the device both are on. Shapes: B rows, T tokens fed to each, V vocabulary."""

    def __init__(
        self, model: Transformer, *, max_rows: int, context: int, prefill_tokens: int, speculate: bool = False
    ) -> None:
        weight = model.lm_head.weight
        self.model, self.prefill_tokens, self.device = model.eval(), prefill_tokens, weight.device
        self.speculates = speculate and len(model.mtp) > 0
        if speculate and not self.speculates:
            say("engine.speculate: the model has no layer that looks further ahead; it answers without guessing")
        self.memory = Memory(
            model.config,
            rows=max_rows,
            tokens=context,
            dtype=weight.dtype,
            device=weight.device,
            ahead=self.speculates,
        )
        self._hidden_BTD = torch.empty(0)
        self._window: Window | None = None
        self._known: list[int] = []
        """Tokens after each but the last of those fed, where they were known before (in a prompt)."""

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """Scores of the next token, shape (B, 1, V), or of the next two, (B, 2, V), where every row was fed a guess.

        `settle` must follow: it says how many of the tokens count.
        """
        if batch.prefill:
            return self._prefill(batch.answers[0], batch.first)
        guesses = [answer.guess for answer in batch.answers]
        room = max(self.memory.lengths[: len(guesses)]) + 2 <= self.memory.max_tokens
        fed = [[answer.generated[-1]] for answer in batch.answers]
        if room and all(guess is not None for guess in guesses):
            fed = [[*last, guess] for last, guess in zip(fed, guesses, strict=True) if guess is not None]
        self._known = []
        return self.model.logits(self.forward(fed, 0))

    @torch.inference_mode()
    def settle(self, answers: Sequence[Answer], taken: Sequence[int]) -> None:
        """Keep what was fed as far as tokens were `taken` from its scores, and guess what comes after the next one."""
        assert self._window, "run comes first"
        if self.speculates:
            fed = self._hidden_BTD.shape[1]
            drawn = (answer.generated[-count:] for answer, count in zip(answers, taken, strict=True))
            # behind the tokens that were taken stands anything: it is forgotten
            guesses_BT = self._ahead([(self._known + tokens + [0] * fed)[:fed] for tokens in drawn])
            for answer, count, guesses in zip(answers, taken, guesses_BT, strict=True):
                answer.guess = guesses[len(self._known) + count - 1]
        self._window.forget([self._window.tokens - len(self._known) - count for count in taken])

    def _prefill(self, answer: Answer, row: int) -> Tensor:
        """Read a prompt; its last piece waits for `settle`, as the token after it is not drawn yet."""
        self.memory.lengths[row] = 0
        size = self.prefill_tokens
        *pieces, last = (answer.prompt[start : start + size] for start in range(0, len(answer.prompt), size))
        for number, piece in enumerate(pieces):
            if answer.cancelled:
                break
            self.forward([piece], row)
            if self.speculates:
                start = number * size + 1
                self._ahead([answer.prompt[start : start + size]])
        self._known = last[1:]
        return self.model.logits(self.forward([last], row)[:, -1:])

    def forward(self, tokens: list[list[int]], row: int) -> Tensor:
        """Add equally many tokens to each row from `row` on; hidden states (B, T, D) come back."""
        window = self._window = self.memory.window(row, len(tokens), len(tokens[0]))
        self._hidden_BTD = self.model(
            torch.tensor(tokens, device=self.device),
            positions_BT=window.positions_BT,
            mask=window.mask_BTS,
            cache=window,
        )
        window.commit()
        return self._hidden_BTD

    def _ahead(self, following: list[list[int]]) -> list[list[int]]:
        """Guess, for each token of the last pass, the one two places on, given the one after it."""
        window = self._window
        assert window, "a pass comes first"
        hidden_BTD = self.model.ahead(
            0,
            self._hidden_BTD,
            torch.tensor(following, device=self.device),
            positions_BT=window.positions_BT,
            mask=window.mask_BTS,
            cache=window,
        )
        return self.model.logits(hidden_BTD).argmax(-1).tolist()
