import queue
import threading
import time

import pytest

from yatsude.engine.engine import Engine
from yatsude.engine.settings import EngineSettings, SamplingSettings
from yatsude.engine.worker import Worker
from yatsude.errors import RequestError


@pytest.fixture
def worker(make_model, tokenizer):
    with Worker(Engine(make_model(), tokenizer, EngineSettings(max_rows=2))) as worker:
        yield worker


def whole(news):
    text = ""
    while True:
        delta = news.get(timeout=10)
        text += delta.text
        if delta.finish_reason:
            return text, delta


def test_many_threads_get_the_answers_of_one(worker, tokenizer, make_model):
    settings = SamplingSettings(seed=2, max_tokens=20, ignore_end=True)
    lines = [[tokenizer.text, *tokenizer.encode(text)] for text in ("吾輩は猫", "今日は", "The cat", "名前")]
    texts = {}

    def ask(number):
        news = queue.SimpleQueue()
        worker.submit(lines[number], settings.seeded(len(lines))[number], news.put)
        texts[number] = whole(news)[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(lines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = Engine(make_model(), tokenizer).generate(lines, settings)
    assert [texts[number] for number in range(len(lines))] == [answer.text for answer in expected]


def test_cancelling_frees_the_row(worker, tokenizer):
    news = queue.SimpleQueue()
    answer = worker.submit([tokenizer.text], SamplingSettings(ignore_end=True), news.put)
    worker.cancel(answer)
    assert whole(news)[1].finish_reason == "cancelled"
    deadline = time.monotonic() + 5
    while worker.running + worker.waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.running + worker.waiting == 0


def test_a_step_that_fails_ends_its_answers_and_not_the_thread(worker, tokenizer, monkeypatch):
    def broken(batch):
        raise RuntimeError("no memory")

    settings = SamplingSettings(max_tokens=3, ignore_end=True)
    with monkeypatch.context() as patch:
        patch.setattr(worker.engine.runner, "run", broken)
        news = queue.SimpleQueue()
        worker.submit([tokenizer.text], settings, news.put)
        delta = whole(news)[1]
        assert delta.finish_reason == "error"
        assert "no memory" not in delta.error
    news = queue.SimpleQueue()
    worker.submit([tokenizer.text], settings, news.put)
    assert whole(news)[1].finish_reason == "length"


def test_a_prompt_too_long_raises_where_it_is_submitted(worker, tokenizer):
    with pytest.raises(RequestError, match="200 tokens"):
        worker.submit([tokenizer.text] * 200, SamplingSettings(), print)


def test_closing_ends_what_is_under_way(make_model, tokenizer):
    news = queue.SimpleQueue()
    with Worker(Engine(make_model(), tokenizer)) as worker:
        worker.submit([tokenizer.text], SamplingSettings(ignore_end=True), news.put)
    assert whole(news)[1].finish_reason in ("error", "length")
