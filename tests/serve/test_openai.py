"""The server as OpenAI's own client sees it."""

import asyncio

import openai
import pytest

MESSAGES = [{"role": "user", "content": "吾輩は猫である。名前は"}]


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **more):
    settings = {"model": "yatsude-test", "messages": MESSAGES, "max_tokens": 20, "seed": 1, **more}
    return client.chat.completions.create(**settings)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["yatsude-test"]
    assert client.models.retrieve("yatsude-test").object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_a_whole_answer(client):
    answer = ask(client)
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert ask(client).choices[0].message.content == choice.message.content


def test_a_stream_has_one_opening_one_end_and_the_same_text(client):
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    ends = [chunk for chunk in chunks[:-1] if chunk.choices[0].finish_reason]
    assert ends == [chunks[-2]]
    assert ends[0].choices[0].delta.content is None
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_several_choices_differ_and_each_ends_once(client):
    whole = [choice.message.content for choice in ask(client, n=3).choices]
    assert len(set(whole)) == 3
    texts, ends = ["", "", ""], [0, 0, 0]
    for chunk in ask(client, n=3, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        ends[choice.index] += choice.finish_reason is not None
    assert texts == whole
    assert ends == [1, 1, 1]


def test_stop_texts_and_both_names_of_the_limit(client):
    text = ask(client, temperature=0).choices[0].message.content
    stopped = ask(client, temperature=0, stop=[text[3:5]]).choices[0]
    assert stopped.message.content == text[: text.find(text[3:5])]
    assert stopped.finish_reason == "stop"
    answer = ask(client, max_tokens=None, max_completion_tokens=5)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (5, "length")


def test_logprobs(client):
    answer = ask(client, temperature=0, logprobs=True, top_logprobs=2)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    assert entries[0].top_logprobs[0].logprob == entries[0].logprob < 0
    raw = b"".join(bytes(entry.bytes) for entry in entries)
    assert raw.decode(errors="ignore") == answer.choices[0].message.content
    streamed = ask(client, temperature=0, logprobs=True, top_logprobs=2, stream=True)
    pieces = [chunk.choices[0].logprobs for chunk in streamed]
    assert [entry for piece in pieces if piece for entry in piece.content] == entries


def test_completions(client, tokenizer):
    ids = [tokenizer.text, *tokenizer.encode("吾輩は")]
    settings = {"model": "yatsude-test", "max_tokens": 10, "temperature": 0}
    answer = client.completions.create(prompt=["吾輩は", "The cat"], n=2, logprobs=1, **settings)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len(answer.choices[0].logprobs.tokens) == 10
    same = client.completions.create(prompt=ids, **settings)
    assert same.choices[0].text == answer.choices[0].text == answer.choices[1].text
    streamed = client.completions.create(prompt=ids, stream=True, **settings)
    assert "".join(chunk.choices[0].text for chunk in streamed) == same.choices[0].text


def test_content_in_parts_and_the_developer_role(client):
    parts = [{"type": "text", "text": "吾輩は猫である。"}, {"type": "text", "text": "名前は"}]
    assert ask(client, messages=[{"role": "user", "content": parts}]).choices[0].message == (
        ask(client).choices[0].message
    )
    told = [{"role": "developer", "content": "短く"}, *MESSAGES]
    assert ask(client, messages=told).choices[0].message.content


def test_many_at_once_over_the_async_client(server, client):
    expected = ask(client, temperature=0).choices[0].message.content

    async def everybody():
        async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none") as many:

            async def one(number):
                if number % 2:
                    return (await ask(many, temperature=0)).choices[0].message.content
                stream = await ask(many, temperature=0, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*map(one, range(12)))

    assert set(asyncio.run(everybody())) == {expected}


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_too_long_is_a_bad_request_with_both_numbers(client, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, messages=[{"role": "user", "content": "猫と犬の話" * 100}], stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert "256" in caught.value.message


def test_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model="gpt-9")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_closed_stream_frees_its_row(client, idle):
    stream = ask(client, max_tokens=None, stream=True, logit_bias={"0": -100, "2": -100})
    next(iter(stream))
    stream.close()
    assert idle()
