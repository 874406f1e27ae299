import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude.errors import DataError
from yatsude.model.loss import IGNORED
from yatsude.spec import chat
from yatsude.tune.feed import ChatFeed, encode

CONTENT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [*chat.SPECIAL_TOKENS, "友だち", "👩‍👩‍👧"]
)
END = chat.SPECIAL_TOKENS.index(chat.END)
MESSAGE = st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from([*chat.ROLES]), CONTENT)
TALK = st.lists(MESSAGE, max_size=6)


@given(talk=TALK)
def test_ids_are_those_of_the_chat_template(tokenizer, talk):
    ids, counted = encode(tokenizer, talk)
    assert ids.tolist() == tokenizer.encode_chat(talk, add_generation_prompt=False)
    assert len(counted) == len(ids)


@given(talk=TALK)
def test_learnt_are_the_assistants_words_and_their_end_alone(tokenizer, talk):
    ids, counted = encode(tokenizer, talk)
    expected = [
        token
        for message in talk
        if message["role"] == "assistant"
        for token in (*tokenizer.encode(message["content"]), END)
    ]
    assert ids[counted].tolist() == expected
    assert not counted[0]
    opens = np.isin(ids, [*tokenizer.controls - {END}])
    assert not counted[opens].any()


def ask(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def packed(feed):
    """Each conversation of the rows: its inputs and targets, cut out by the number of its document."""
    for inputs, targets, documents in zip(feed.rows.inputs, feed.rows.targets, feed.rows.documents, strict=True):
        for number in np.unique(documents):
            place = documents == number
            assert np.flatnonzero(place).tolist() == list(range(place.argmax(), place.argmax() + place.sum()))
            yield inputs[place], targets[place]


@settings(deadline=None, max_examples=50)
@given(talks=st.lists(st.builds(ask, CONTENT, CONTENT), min_size=1, max_size=12), length=st.integers(12, 80))
def test_packing_keeps_every_conversation_whole_and_once(tokenizer, talks, length):
    """Cut apart by document, the rows give back the conversations that fit, in order, and unlearnt padding."""
    fits = [talk for talk in talks if len(encode(tokenizer, talk)[0]) - 1 <= length]
    if not fits:
        with pytest.raises(DataError, match=f"no conversation fits into {length} tokens"):
            ChatFeed(tokenizer, talks, length, 0)
        return
    feed = ChatFeed(tokenizer, talks, length, 0)
    assert feed.too_long == len(talks) - len(fits)
    assert feed.characters == sum(len(talk[1]["content"]) for talk in fits)
    expected = iter(fits)
    for inputs, targets in packed(feed):
        ids, counted = encode(tokenizer, next(expected))
        size = len(ids) - 1
        assert inputs[:size].tolist() == ids[:-1].tolist()
        assert targets[:size].tolist() == np.where(counted[1:], ids[1:], IGNORED).tolist()
        assert (inputs[size:] == tokenizer.pad).all()
        assert (targets[size:] == IGNORED).all()
    assert next(expected, None) is None


@pytest.fixture
def feed(tokenizer):
    return ChatFeed(tokenizer, [ask(f"質問 {n}", f"答え {n}") for n in range(40)], 40, seed=1)


def test_an_epoch_shows_every_row_once_and_the_next_in_another_order(feed):
    size = len(feed.rows.inputs)
    orders = []
    for epoch in range(2):
        batch = feed.batch(epoch * size, size)
        orders.append([tuple(row) for row in batch.inputs])
        assert sorted(orders[-1]) == sorted(tuple(row) for row in feed.rows.inputs)
    assert orders[0] != orders[1]


def test_a_sample_depends_on_its_number_alone(feed):
    whole = feed.batch(3, 6)
    parts = [feed.batch(3, 2), feed.batch(5, 4)]
    assert np.array_equal(whole.inputs, np.concatenate([part.inputs for part in parts]))
    assert np.array_equal(whole.targets, np.concatenate([part.targets for part in parts]))


def test_rows_in_order_come_once(feed):
    batches = list(feed.batches(3))
    assert np.array_equal(np.concatenate([batch.inputs for batch in batches]), feed.rows.inputs)
    assert max(len(batch.inputs) for batch in batches) == 3
