"""Many answers from one model, a token at a time: schedule, run, postprocess. One thread at a time may use it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch

from yatsude.engine.answer import Answer, Delta, FinishReason
from yatsude.engine.runner import Runner
from yatsude.engine.sampler import Scored, sample
from yatsude.engine.scheduler import Scheduler
from yatsude.engine.settings import EngineSettings, SamplingSettings
from yatsude.errors import RecipeError, RequestError
from yatsude.model.transformer import Transformer
from yatsude.tokenizer.tokenizer import Tokenizer

__all__ = ["Completion", "Engine"]


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer; `tokens` holds the ids that were drawn, the one that ended it included."""

    text: str
    tokens: tuple[int, ...]
    scored: tuple[Scored, ...]
    finish_reason: FinishReason
    prompt_tokens: int


class Engine:
    """A model, its tokenizer, and the answers under way.

    >>> engine = load(Path("run/export"))
    >>> prompt = engine.tokenizer.encode_chat([{"role": "user", "content": "こんにちは"}])
    >>> engine.generate([prompt], SamplingSettings(temperature=0))[0].text
    'こんにちは。'
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, settings: EngineSettings | None = None) -> None:
        settings = settings or EngineSettings()
        longest = model.config.context
        if settings.context > longest:
            raise RecipeError(
                f"engine.context = {settings.context}: the model was made for {longest} tokens; give at most that"
            )
        self.tokenizer, self.context = tokenizer, settings.context or longest
        self.runner = Runner(
            model,
            max_rows=settings.max_rows,
            context=self.context,
            prefill_tokens=settings.prefill_tokens,
            speculate=settings.speculate,
        )
        self.scheduler = Scheduler(settings.max_rows, self.runner.memory.move)
        ends = model.config.eos_token_id
        self.ends = tokenizer.controls | frozenset([ends] if isinstance(ends, int) else ends or ())
        """Tokens that close an answer: whatever opens or closes a message cannot be part of one."""

    def submit(self, prompt: Sequence[int], settings: SamplingSettings, listener: Callable[[Delta], None]) -> Answer:
        """Queue a prompt (token ids); `listener` hears of every new piece of text. Set `cancelled` to stop it."""
        answer = self.answer(prompt, settings, listener)
        self.scheduler.waiting.append(answer)
        return answer

    def answer(self, prompt: Sequence[int], settings: SamplingSettings, listener: Callable[[Delta], None]) -> Answer:
        """Check a prompt against the context and the vocabulary, and prepare its answer without queueing it."""
        if not prompt:
            raise RequestError("the prompt holds no token; expected at least one")
        if len(prompt) >= self.context:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, the model reads {self.context}, one of them for the answer;"
                " shorten the prompt or start a new conversation"
            )
        vocabulary = self.tokenizer.vocab_size
        for token in (*prompt, *(token for token, _ in settings.logit_bias)):
            if not 0 <= token < vocabulary:
                raise RequestError(f"token id {token}: expected 0 to {vocabulary - 1}")
        if len({token for token, bias in settings.logit_bias if bias <= -100}) == vocabulary:
            raise RequestError("logit_bias forbids every token; expected at least one that may be drawn")
        room = self.context - len(prompt)
        limit = room if settings.max_tokens is None else min(room, settings.max_tokens)
        return Answer(prompt, settings, limit=limit, stream=self.tokenizer.stream(), listener=listener)

    def step(self) -> bool:
        """Bring every answer one token on, or read one prompt; False when there is nothing to do."""
        self.scheduler.cancel()
        batch = self.scheduler.schedule()
        if batch is None:
            return False
        logits_BTV = self.runner.run(batch)[..., : self.tokenizer.vocab_size]
        taken = self._drawn(logits_BTV, batch.answers)
        self.runner.settle(batch.answers, taken)
        self.scheduler.retire()
        return True

    def fail(self, error: str) -> None:
        """End every answer with an error that its listener is told."""
        everyone = [*self.scheduler.waiting, *self.scheduler.running]
        self.scheduler.end(everyone, lambda answer: answer.end("error", error))

    def stream(self, prompt: Sequence[int], settings: SamplingSettings) -> Iterator[Delta]:
        """Yield one answer piece by piece; leaving the loop frees its row."""
        news: list[Delta] = []
        answer = self.submit(prompt, settings, news.append)
        try:
            while answer.finish_reason is None:
                self.step()
                yield from news
                news.clear()
        finally:
            answer.cancelled = True
            self.scheduler.cancel()

    def generate(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> list[Completion]:
        """Answer many prompts (token ids), several at the same time, in their order; with a seed, each has its own."""
        news: list[list[Delta]] = [[] for _ in prompts]
        answers = [
            self.answer(prompt, own, new.append)
            for prompt, own, new in zip(prompts, settings.seeded(len(prompts)), news, strict=True)
        ]
        self.scheduler.waiting.extend(answers)
        while self.step():
            pass
        return [_whole(answer, new) for answer, new in zip(answers, news, strict=True)]

    @torch.inference_mode()
    def _drawn(self, logits_BTV: torch.Tensor, answers: list[Answer]) -> list[int]:
        """Draw a token for each row, and one more where the row's guess was drawn; how many each row got."""
        taken = [0] * len(answers)
        rows = list(range(len(answers)))
        for place in range(logits_BTV.shape[1]):
            if place:
                rows = [row for row in rows if _guessed(answers[row])]
            if not rows:
                break
            tokens, scores = sample(logits_BTV[rows, place], [answers[row].drawer for row in rows])
            for row, token, score in zip(rows, tokens, scores, strict=True):
                self._take(answers[row], token, score)
                taken[row] += 1
        return taken

    def _take(self, answer: Answer, token: int, score: Scored | None) -> None:
        if not answer.cancelled:
            answer.take(token, score, ends=token in self.ends and not answer.settings.ignore_end)


def _guessed(answer: Answer) -> bool:
    """Whether an answer that goes on was given the very token that had been guessed."""
    return answer.finish_reason is None and not answer.cancelled and answer.generated[-1] == answer.guess


def _whole(answer: Answer, news: list[Delta]) -> Completion:
    return Completion(
        text="".join(delta.text for delta in news),
        tokens=tuple(answer.generated),
        scored=tuple(scored for delta in news for scored in delta.scored),
        finish_reason=answer.finish_reason or "cancelled",
        prompt_tokens=len(answer.prompt),
    )
