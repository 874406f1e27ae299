import gc
import resource

import pytest
import torch

from yatsude.engine.engine import Engine
from yatsude.engine.settings import EngineSettings, SamplingSettings
from yatsude.errors import RequestError
from yatsude.spec import chat

END = chat.SPECIAL_TOKENS.index(chat.END)
LONG = SamplingSettings(temperature=0, max_tokens=20, ignore_end=True)


@pytest.fixture
def engine(make_model, tokenizer):
    return Engine(make_model(), tokenizer, EngineSettings(max_rows=3, prefill_tokens=8))


def prompts(tokenizer):
    texts = (
        "吾輩は",
        "今日はいい天気ですね。散歩に",
        "The cat",
        "名前は",
        "猫",
        "いい天気ですね。" * 3,
        "行きましょう",
    )
    return [[tokenizer.text, *tokenizer.encode(text)] for text in texts]


@pytest.mark.parametrize("settings", [LONG, SamplingSettings(seed=3, max_tokens=30, temperature=0.8, top_p=0.9)])
def test_a_batch_says_what_each_prompt_says_alone(engine, tokenizer, settings):
    together = engine.generate(prompts(tokenizer), settings)
    lines = prompts(tokenizer)
    alone = [engine.generate([line], own)[0] for line, own in zip(lines, settings.seeded(len(lines)), strict=True)]
    assert together == alone
    assert not engine.scheduler.running


def test_greedy_follows_the_model_without_cache(engine, tokenizer):
    prompt = prompts(tokenizer)[0]
    tokens = list(prompt)
    model, vocabulary = engine.runner.model, tokenizer.vocab_size
    with torch.inference_mode():
        for _ in range(20):
            tokens.append(int(model.logits(model(torch.tensor([tokens]))[0, -1])[:vocabulary].argmax()))
    got = engine.generate([prompt], LONG)[0]
    assert list(got.tokens) == tokens[len(prompt) :]
    assert got.text == tokenizer.decode(got.tokens)
    assert got.finish_reason == "length"


def test_a_seed_repeats_and_no_seed_does_not(engine, tokenizer):
    prompt = prompts(tokenizer)[0]

    def say(seed):
        return engine.generate([prompt], SamplingSettings(seed=seed, max_tokens=30, ignore_end=True))[0].tokens

    assert say(4) == say(4) != say(5)
    assert say(None) != say(None)


def test_answers_that_are_drawn_together_do_not_share_their_random_numbers(engine, tokenizer):
    settings = SamplingSettings(seed=4, max_tokens=30, ignore_end=True)
    first, second = engine.generate([prompts(tokenizer)[0]] * 2, settings)
    assert first.tokens == engine.generate([prompts(tokenizer)[0]], settings)[0].tokens
    assert first.tokens != second.tokens


def test_an_end_token_ends_the_answer_and_is_not_shown(engine, tokenizer):
    settings = SamplingSettings(temperature=0, logit_bias=((END, 100.0),))
    answer = engine.generate([prompts(tokenizer)[0]], settings)[0]
    assert (answer.text, answer.tokens, answer.finish_reason) == (
        "",
        (END,),
        "stop",
    )


def test_a_stop_text_ends_the_answer_before_it(engine, tokenizer):
    answers = zip(prompts(tokenizer), engine.generate(prompts(tokenizer), LONG), strict=True)
    prompt, whole = max(((prompt, answer.text) for prompt, answer in answers), key=lambda pair: len(pair[1]))
    stop = whole[4:7]
    assert stop
    settings = SamplingSettings(temperature=0, max_tokens=20, ignore_end=True, stop=(stop,))
    answer = engine.generate([prompt], settings)[0]
    assert (answer.text, answer.finish_reason) == (whole[: whole.find(stop)], "stop")


def test_the_answer_ends_with_the_context(engine, tokenizer):
    prompt = [tokenizer.text] * 120
    answer = engine.generate([prompt], SamplingSettings(temperature=0, ignore_end=True))[0]
    assert (len(answer.tokens), answer.finish_reason) == (128 - 120, "length")


def test_a_prompt_longer_than_the_context_names_both_numbers(engine, tokenizer):
    with pytest.raises(RequestError, match=r"130 tokens.*128"):
        engine.generate([[tokenizer.text] * 130], LONG)
    with pytest.raises(RequestError, match="no token"):
        engine.generate([[]], LONG)
    with pytest.raises(RequestError, match="99999"):
        engine.generate([[99999]], LONG)
    assert not engine.scheduler.waiting


def test_a_cancelled_answer_frees_its_row_and_leaves_the_others_alone(engine, tokenizer):
    expected = [answer.text for answer in engine.generate(prompts(tokenizer)[:3], LONG)]
    texts = ["", "", ""]

    def listener(index):
        def hear(delta):
            texts[index] += delta.text

        return hear

    answers = [engine.submit(p, LONG, listener(n)) for n, p in enumerate(prompts(tokenizer)[:3])]
    for _ in range(6):
        engine.step()
    answers[0].cancelled = True
    while engine.step():
        pass
    assert answers[0].finish_reason == "cancelled"
    assert len(answers[0].generated) < 20
    assert texts[1:] == expected[1:]


def test_a_stream_gives_the_same_text_and_frees_its_row_when_left(engine, tokenizer):
    prompt = prompts(tokenizer)[1]
    whole = engine.generate([prompt], LONG)[0].text
    deltas = list(engine.stream(prompt, LONG))
    assert "".join(delta.text for delta in deltas) == whole
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["length"]
    stream = engine.stream(prompt, LONG)
    next(stream)
    stream.close()
    assert not engine.scheduler.running
    assert not engine.scheduler.waiting


def test_logprobs_come_with_the_tokens_of_the_text(engine, tokenizer):
    settings = SamplingSettings(temperature=0, max_tokens=12, ignore_end=True, logprobs=2)
    answer = engine.generate([prompts(tokenizer)[0]], settings)[0]
    assert tuple(scored.token for scored in answer.scored) == answer.tokens
    assert all(scored.likeliest[0] == (scored.token, scored.logprob) for scored in answer.scored)


def test_memory_stays_over_a_thousand_requests(make_model, tokenizer):
    engine = Engine(make_model(torch.float32), tokenizer, EngineSettings(max_rows=8))
    settings = SamplingSettings(seed=1, max_tokens=2, ignore_end=True, stop=("zzz",))
    batch = [[tokenizer.text, 7 + n % 50, 9] for n in range(200)]
    engine.generate(batch, settings)
    gc.collect()
    held, objects = engine.runner.memory.bytes, len(gc.get_objects())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        engine.generate(batch, settings)
    gc.collect()
    assert engine.runner.memory.bytes == held
    assert len(gc.get_objects()) < objects + 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 20_000  # kB
