"""Guessing ahead changes how many steps an answer takes, and nothing else."""

import dataclasses

import pytest
import torch

from yatsude.engine.engine import Engine
from yatsude.engine.settings import EngineSettings, SamplingSettings
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.layout import in_layout

GREEDY = SamplingSettings(temperature=0, max_tokens=24, ignore_end=True)
DRAWN = SamplingSettings(seed=3, max_tokens=24, temperature=0.9, top_p=0.9, presence_penalty=0.5)
TEXTS = ("吾輩は", "今日はいい天気ですね。散歩に", "The cat", "いい天気ですね。" * 3, "猫")


@pytest.fixture(scope="session")
def ahead(config):
    def make(**changes):
        model = Transformer(dataclasses.replace(config, num_nextn_predict_layers=1, **changes))
        initialise(model, 0)
        with torch.no_grad():
            model.lm_head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
        return model.double().eval()

    return make


def engine_of(model, tokenizer, speculate):
    return Engine(model, tokenizer, EngineSettings(max_rows=3, prefill_tokens=8, speculate=speculate))


def prompts(tokenizer):
    return [[tokenizer.text, *tokenizer.encode(text)] for text in TEXTS]


class Guesses:
    """Stands where the layer would, with guesses that are right as often as asked."""

    def __init__(self, answers, right):
        self.answers, self.right, self.asked = answers, right, 0

    def __call__(self, following):
        guesses = []
        for row in following:
            guesses.append([])
            for token in row:
                self.asked += 1
                after = [b for a in self.answers for b, before in zip(a[1:], a, strict=False) if before == token]
                guesses[-1].append(after[0] if after and self.asked % 7 < self.right else 1)
        return guesses


@pytest.mark.parametrize("settings", [GREEDY, DRAWN])
@pytest.mark.parametrize("right", [0, 3, 7])
def test_answers_are_the_same_whatever_is_guessed(ahead, tokenizer, settings, right):
    plain = engine_of(ahead(), tokenizer, speculate=False).generate(prompts(tokenizer), settings)
    engine = engine_of(ahead(), tokenizer, speculate=True)
    engine.runner._ahead = Guesses([answer.tokens for answer in plain], right)
    assert engine.generate(prompts(tokenizer), settings) == plain


def test_right_guesses_halve_the_steps(ahead, tokenizer, monkeypatch):
    plain = engine_of(ahead(), tokenizer, speculate=False).generate(prompts(tokenizer)[:1], GREEDY)
    tokens = list(plain[0].tokens)
    engine = engine_of(ahead(), tokenizer, speculate=True)

    def oracle(following):
        place = len(engine.scheduler.running[0].generated)
        known = [*tokens, 0, 0]
        width = len(following[0])
        return [[known[place - max(1, sum(bool(t) for t in following[0])) + 1 + i] for i in range(width)]]

    engine.runner._ahead = oracle
    steps = 0
    answer = engine.submit(prompts(tokenizer)[0], GREEDY, lambda delta: None)
    while engine.step():
        steps += 1
    assert answer.generated == tokens
    assert steps <= 1 + 24 // 2 + 1


@pytest.mark.parametrize("layout", ["deepseek_v3", "glm4_moe"])
def test_the_layer_guesses_through_the_cache_what_it_would_without(ahead, config, tokenizer, layout):
    changes = {} if layout == "deepseek_v3" else dataclasses.asdict(in_layout(config, layout))
    changes.pop("num_nextn_predict_layers", None)
    model = ahead(**changes)
    engine = engine_of(model, tokenizer, speculate=True)
    prompt = prompts(tokenizer)[3]
    answer = engine.submit(prompt, GREEDY, lambda delta: None)
    guesses = []
    while engine.step():
        if answer.finish_reason is None:
            guesses.append((len(answer.generated), answer.guess))
    whole = torch.tensor([prompt + answer.generated])
    with torch.inference_mode():
        hidden = model(whole[:, :-1])
        expected = model.logits(model.ahead(0, hidden, whole[:, 1:]))[0].argmax(-1)
    assert len(guesses) >= 12
    for count, guess in guesses:
        assert guess == expected[len(prompt) + count - 2]


def test_a_model_without_the_layer_is_not_asked(make_model, tokenizer):
    engine = engine_of(make_model(), tokenizer, speculate=True)
    assert not engine.runner.speculates
    assert engine.generate(prompts(tokenizer)[:1], GREEDY)[0].finish_reason == "length"


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_limits_and_the_end_of_the_context_hold(ahead, tokenizer, limit):
    settings = dataclasses.replace(GREEDY, max_tokens=limit)
    plain, guessing = (engine_of(ahead(), tokenizer, speculate=s) for s in (False, True))
    assert plain.generate(prompts(tokenizer), settings) == guessing.generate(prompts(tokenizer), settings)
    full = [[tokenizer.text, *tokenizer.encode("猫" * 200)][: 128 - limit]]
    long = dataclasses.replace(GREEDY, max_tokens=None)
    assert plain.generate(full, long) == guessing.generate(full, long)
