import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude import shards
from yatsude.errors import DataError
from yatsude.shards import Shards
from yatsude.train.feed import Feed, permute, place


@settings(deadline=None)
@given(st.integers(1, 300), st.text(max_size=8))
def test_permute_is_a_permutation(size, key):
    assert sorted(permute(index, size, key) for index in range(size)) == list(range(size))


@given(st.integers(1, 2**50), st.data())
def test_permute_stays_inside_at_any_size(size, data):
    assert 0 <= permute(data.draw(st.integers(0, size - 1)), size, "key") < size


def test_keys_shuffle_differently_and_well():
    orders = [[permute(index, 1000, key) for index in range(1000)] for key in ("0:0", "0:1", "1:0")]
    for order in orders:
        assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15
        assert sum(place == index for index, place in enumerate(order)) < 20
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(orders[one], orders[other])[0, 1]) < 0.15


@pytest.fixture
def feed(tokens):
    return Feed(Shards(tokens / "train"), 32, 0)


def test_every_sample_comes_once_an_epoch_in_an_order_of_its_own(feed):
    epochs = [[place(e * feed.size + i, feed.size, 0) for i in range(feed.size)] for e in range(3)]
    assert all(sorted(epoch) == list(range(feed.size)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_the_order_does_not_depend_on_the_batch_size(feed):
    whole = feed.batch(0, 2 * feed.size)
    for size in (1, 3, 7):
        parts = [feed.batch(first, min(size, 2 * feed.size - first)) for first in range(0, 2 * feed.size, size)]
        for name in ("inputs", "targets", "documents"):
            assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


def test_targets_are_the_next_tokens_and_documents_change_at_separators(feed):
    batch = feed.batch(0, 20)
    assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert np.array_equal(np.diff(batch.documents, axis=1), batch.inputs[:, 1:] == 0)
    for row in range(20):
        sample = feed.shards.sample(place(row, feed.size, 0), 32)
        assert np.array_equal(np.append(batch.inputs[row], batch.targets[row, -1]), sample)


def test_another_seed_is_another_order(tokens, feed):
    other = Feed(Shards(tokens / "train"), 32, 1)
    assert not np.array_equal(feed.batch(0, 20).inputs, other.batch(0, 20).inputs)


def test_too_little_text_says_how_much_there_is(tmp_path):
    few = shards.write(tmp_path, [([1, 2, 3], 3)], vocab_size=10, separator=0)
    assert Feed(few, 4, 0).size == 1
    with pytest.raises(DataError, match="has 5 tokens, too few for one sample of 5; add text or lower"):
        Feed(few, 5, 0)
