import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude.data import twins


def similarity(one: str, other: str) -> float:
    a, b = (({t[i : i + 3] for i in range(max(1, len(t) - 2))}) for t in (one, other))
    return len(a & b) / len(a | b)


def by_hand(texts: list[str], limit: float) -> list[int]:
    labels = list(range(len(texts)))
    for i, j in itertools.combinations(range(len(texts)), 2):
        if similarity(texts[i], texts[j]) >= limit - 1e-9:
            low, high = sorted((labels[i], labels[j]))
            labels = [low if label == high else label for label in labels]
    return labels


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text("abc", min_size=1, max_size=9), max_size=25), st.sampled_from([0.3, 0.5, 0.6, 0.8, 1.0]))
def test_clusters_equal_those_of_comparing_every_pair(texts, limit):
    assert twins.clusters(texts, limit).tolist() == by_hand(texts, limit)


@pytest.mark.parametrize(("batch", "large"), [(1, 1), (20, 4), (50, 1000)])
def test_small_batches_and_long_texts_change_nothing(monkeypatch, batch, large):
    monkeypatch.setattr(twins, "BATCH_PAIRS", batch)
    monkeypatch.setattr(twins, "BATCH_WORK", 8)
    monkeypatch.setattr(twins, "LARGE", large)
    pick = random.Random(0)
    for _ in range(20):
        texts = ["".join(pick.choices("あいう", k=pick.randint(1, 10))) for _ in range(60)]
        assert twins.clusters(texts, 0.5).tolist() == by_hand(texts, 0.5)


def test_japanese_twins():
    texts = [
        "彼は昨日学校へ行きました。",
        "猫が好きです。",
        "彼は昨日学校へ行きました！",
        "彼は一昨日学校へ行きました。",
    ]
    assert twins.clusters(texts, 0.5).tolist() == [0, 1, 0, 0]


def test_many_equal_texts_are_one_cluster():
    assert not np.any(twins.clusters(["同じ文がここにあります。"] * 2000, 0.5))


def test_nothing_and_one():
    assert twins.clusters([], 0.5).tolist() == []
    assert twins.clusters(["あ"], 0.5).tolist() == [0]
