from collections import Counter, defaultdict
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude.errors import DataError
from yatsude.text.ngram import FALLBACK, Ngram, estimate_discounts, fit_orders

TOY = st.lists(st.text("あいうa", max_size=6), min_size=1, max_size=12).filter(any)


class Reference:
    """The same model from its definition, with dictionaries and one probability at a time."""

    def __init__(self, texts, order):
        self.alphabet = {c for text in texts for c in text}
        self.order = order
        seen = Counter()
        for text in texts:
            symbols = ["<s>", *text, "</s>"]
            for end in range(2, len(symbols) + 1):
                for length in range(1, min(order, end) + 1):
                    seen[tuple(symbols[end - length : end])] += 1
        before = defaultdict(set)
        for gram in seen:
            before[gram[1:]].add(gram[0])
        self.counts = [
            {g: n if k == order or g[0] == "<s>" else len(before[g]) for g, n in seen.items() if len(g) == k}
            for k in range(1, order + 1)
        ]
        self.counts[0] = {g: n if order == 1 else len(before[g]) for g, n in self.counts[0].items()}
        self.discounts = [self.estimate(list(counts.values())) for counts in self.counts]

    @staticmethod
    def estimate(counts):
        n1, n2, n3, n4 = (counts.count(n) for n in (1, 2, 3, 4))
        if 0 in (n1, n2, n3):
            return FALLBACK
        y = n1 / (n1 + 2 * n2)
        found = (0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        return found if min(found[1:]) > 0 else FALLBACK

    def chance(self, history, symbol):
        history = history[max(0, len(history) - self.order + 1) :]
        return self._chance(tuple(history), symbol)

    def _chance(self, history, symbol):
        below = self._chance(history[1:], symbol) if history else 1 / (len(self.alphabet) + 2)
        level = self.counts[len(history)]
        here = {g[-1]: n for g, n in level.items() if g[:-1] == history}
        if not here:
            return below
        discount = self.discounts[len(history)]
        total, hits = sum(here.values()), here.get(symbol, 0)
        freed = sum(discount[min(n, 3)] for n in here.values())
        return (hits - discount[min(hits, 3)] + freed * below) / total

    def bits(self, texts):
        bits = 0.0
        for text in texts:
            symbols = ["<s>", *(c if c in self.alphabet else "unknown" for c in text), "</s>"]
            bits += sum(c not in self.alphabet for c in text) * log2(0x110000 - len(self.alphabet))
            bits -= sum(log2(self.chance(symbols[:n], symbols[n])) for n in range(1, len(symbols)))
        return bits


def test_a_value_computed_by_hand():
    # "a" alone gives the pairs (BEGIN, a) and (a, END), each once. Discounts fall back to 0.5 for a count of one.
    # One symbol:  P(a) = P(END) = (1 - 0.5) / 2 + (2 · 0.5) / 2 · 1/3 = 5/12, with 3 symbols: a, END, unknown.
    # Two symbols: P(a | BEGIN) = P(END | a) = (1 - 0.5) / 1 + 0.5 / 1 · 5/12 = 17/24.
    model = Ngram.fit(["a"], order=2)
    assert model.bits(["a"]) == pytest.approx(2 * log2(24 / 17))
    assert model.bits_per_character(["a", "a"]) == pytest.approx(2 * log2(24 / 17))
    assert dict(zip(model.symbols, model.distribution(""), strict=True)) == pytest.approx(
        {"a": 17 / 24, "": 5 / 24, "unknown": 2 / 24}
    )
    # an unknown character shares 2/24 with all other code points; after it only P(END) = 5/12 is left
    assert model.bits(["z"]) == pytest.approx(log2(24 / 2 * (0x110000 - 1)) + log2(12 / 5))


def test_discounts_by_hand():
    # n1, n2, n3, n4 = 4, 3, 2, 1: y = 4 / (4 + 6) = 0.4
    counts = np.array([1] * 4 + [2] * 3 + [3] * 2 + [4] + [9], np.int32)
    assert estimate_discounts(counts) == pytest.approx((0, 1 - 0.8 * 3 / 4, 2 - 1.2 * 2 / 3, 3 - 1.6 * 1 / 2))
    assert estimate_discounts(np.array([1, 1, 5], np.int32)) == FALLBACK


@settings(max_examples=60, deadline=None)
@given(TOY, st.lists(st.text("あいうaz", max_size=6), min_size=1, max_size=4), st.integers(1, 5))
def test_agrees_with_the_definition(texts, scored, order):
    model = fit_orders(texts, [order], tune=False)[order]
    assert model.bits(scored) == pytest.approx(Reference(texts, order).bits(scored), rel=1e-9, abs=1e-9)


def test_agrees_with_the_definition_where_discounts_are_estimated():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("あいうえおかき"), size=rng.integers(0, 12), p=SKEWED)) for _ in range(120)]
    for order in (3, 4, 5):
        model, reference = fit_orders(texts, [order], tune=False)[order], Reference(texts, order)
        assert any(tuple(found) != FALLBACK for found in model.discounts)
        assert model.bits(texts[:20]) == pytest.approx(reference.bits(texts[:20]), rel=1e-9)


SKEWED = np.array([8, 6, 4, 2, 1, 1, 1]) / 23


@settings(max_examples=40, deadline=None)
@given(TOY, st.text("あいうaz", max_size=7), st.integers(1, 5), st.booleans())
def test_probabilities_sum_to_one_after_any_start(texts, start, order, tune):
    chances = fit_orders(texts, [order], tune=tune)[order].distribution(start)
    assert chances.min() > 0
    assert chances.sum() == pytest.approx(1)


def test_orders_fitted_together_are_those_fitted_alone():
    texts = ["こんにちは。", "こんばんは。", "さようなら。", "こんにちは、世界。"] * 8
    together = fit_orders(texts, (3, 4, 5))
    for order, model in together.items():
        alone = Ngram.fit(texts, order)
        assert model.order == order
        assert model.discounts == alone.discounts
        assert model.bits(["こんにちは、みなさん。"]) == alone.bits(["こんにちは、みなさん。"])


def test_tuning_does_not_see_what_it_is_measured_on_and_helps_on_its_slice():
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("あいうえおかき"), size=8, p=SKEWED)) for _ in range(400)]
    plain = fit_orders(texts[40:], [3], tune=False)[3]
    before = plain.bits(texts[:40])
    plain.discounts = plain.tuned(texts[:40])
    assert plain.bits(texts[:40]) <= before
    assert all(0 < d <= n for level in plain.discounts for n, d in enumerate(level) if n)


def test_longer_orders_help_on_repetitive_text():
    texts = ["今日はいい天気ですね。", "明日もいい天気でしょう。", "昨日は雨でした。"] * 10
    bits = [model.bits_per_character(["今日はいい天気でした。"]) for model in fit_orders(texts, (1, 2, 3)).values()]
    assert bits == sorted(bits, reverse=True)


def test_every_text_has_finite_bits():
    model = Ngram.fit(["あ", "", "い"], order=4)
    assert np.isfinite(model.bits(["", "\0\U0010ffff👩‍👩‍👧", "あい" * 50]))


@pytest.mark.parametrize(("texts", "order"), [([], 3), (["", ""], 3), (["あ"], 0)])
def test_nothing_to_count_is_an_error(texts, order):
    with pytest.raises(DataError, match="expected orders from 1 and some text"):
        Ngram.fit(texts, order)


def test_nothing_to_measure_is_an_error():
    with pytest.raises(DataError, match="2 texts without a single character"):
        Ngram.fit(["あ"], order=2).bits_per_character(["", ""])
