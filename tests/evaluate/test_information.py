import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude.evaluate.information import (
    against_chance,
    comparable,
    information,
    information_given_token,
    shares,
    token_against_chance,
)

TABLES = st.integers(2, 8).flatmap(
    lambda units: st.tuples(
        st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=units, max_size=units),
        st.lists(st.sampled_from("abc"), min_size=units, max_size=units),
    )
)


def table(rows):
    """Units of one layer, (U, 1, E)."""
    return np.array(rows, np.int64)[:, None]


def bits(rows, labels, strata=None):
    return information(table(rows), np.array(labels), np.array(strata or [""] * len(labels)))[0]


def planted(units, strength, seed, experts=8, tokens=200):
    """Texts of two kinds in turn; `strength` of the first kind's tokens go to expert 0 whatever else."""
    generator = np.random.default_rng(seed)
    labels = ["law", "talk"] * (units // 2)
    even = np.full(experts, 1 / experts)
    chances = {"law": (1 - strength) * even + strength * np.eye(experts)[0], "talk": even}
    # texts differ among themselves more than tokens drawn one by one would
    rows = [generator.multinomial(tokens, generator.dirichlet(40 * chances[label] + 1e-9)) for label in labels]
    return table(rows), labels


def test_hand_computed():
    assert bits([[5, 0], [0, 9]], ["a", "b"]) == pytest.approx(1.0)
    assert bits([[3, 7], [30, 70]], ["a", "b"]) == pytest.approx(0.0)
    # a: 3/4 1/4; b: 1/4 3/4: one bit less the entropy of a quarter
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert bits([[1, 1], [2, 0], [1, 3]], ["a", "a", "b"]) == pytest.approx(1 - quarter)


def test_labels_weigh_the_same_however_much_text_they_have():
    assert bits([[500, 0], [0, 1]], ["a", "b"]) == pytest.approx(1.0)


def test_within_strata_a_stratum_alone_tells_nothing():
    rows, labels, strata = [[9, 0], [9, 0], [0, 9], [0, 9]], ["a", "b", "a", "b"], ["x", "x", "y", "y"]
    assert bits(rows, labels, strata) == 0
    rows, labels, strata = [[9, 0], [0, 9], [5, 5], [5, 5]], ["a", "b", "a", "b"], ["x", "x", "y", "y"]
    assert bits(rows, labels, strata) == pytest.approx(0.5)  # a bit in one half of the units


def test_what_can_be_compared():
    kinds = ["law", "law", "talk", "talk", "code"]
    assert comparable(kinds, [""] * 5).tolist() == [True, True, True, True, False]
    assert not comparable(["law", "law", "talk"], [""] * 3).any()
    styles = ["polite", "polite", "plain", "plain", None]
    assert comparable(styles, ["law"] * 5).tolist() == [True] * 4 + [False]
    assert not comparable(styles, ["law", "law", "talk", "talk", "talk"]).any()


@given(TABLES)
def test_bounds_and_no_matter_in_what_order(found):
    rows, labels = found
    value = bits(rows, labels)
    assert 0 <= value <= math.log2(max(len(set(labels)), 1)) + 1e-9
    order = np.random.default_rng(0).permutation(len(rows))
    assert bits([rows[n] for n in order], [labels[n] for n in order]) == pytest.approx(value)
    assert bits([row[::-1] for row in rows], labels) == pytest.approx(value)
    renamed = [{"a": "z", "b": "y", "c": "x"}[label] for label in labels]
    assert bits(rows, renamed) == pytest.approx(value)


def test_shares_sum_to_one():
    found = shares(table([[1, 3], [1, 3], [0, 0]]), np.array(["a", "a", "b"]))
    assert found["a"].tolist() == [[0.25, 0.75]]
    assert found["b"].tolist() == [[0.0, 0.0]]


def test_an_expert_planted_for_a_kind_is_found():
    counts, labels = planted(32, 0.3, seed=1)
    found = against_chance(counts, labels, [""] * 32, shuffles=199, seed=0)
    assert found.mean.p == 1 / 200
    assert found.mean.bits > 3 * found.mean.chance_95 > 3 * found.mean.chance
    assert found.units == {"law": 16, "talk": 16}
    assert found.most == 1.0


def test_kinds_that_mean_nothing_are_told_by_chance_alone():
    """Of forty such tests about one in twenty is below 0.05, and the bits lie about where chance puts them."""
    found = [
        against_chance(*planted(24, 0.0, seed), [""] * 24, shuffles=99, seed=seed).mean  # seeds 0 to 39
        for seed in range(40)
    ]
    assert sum(finding.p < 0.05 for finding in found) <= 6
    assert np.mean([finding.bits for finding in found]) == pytest.approx(np.mean([f.chance for f in found]), rel=0.2)
    assert np.mean([finding.p for finding in found]) == pytest.approx(0.5, abs=0.15)


def test_tokens_of_one_text_depend_on_each_other_and_that_is_not_taken_for_a_find():
    """Dealing tokens instead of texts would call nearly every one of these a find."""
    found = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        rows = [generator.multinomial(200, generator.dirichlet(np.ones(4))) for _ in range(12)]
        found.append(against_chance(table(rows), ["a", "b"] * 6, [""] * 12, shuffles=99, seed=0).mean.p)
    assert sum(p < 0.05 for p in found) <= 4


def test_a_style_that_only_goes_with_the_kind_is_no_find():
    """Law is plain and sent to its own expert; within law, style means nothing."""
    generator = np.random.default_rng(3)
    strata = ["law"] * 12 + ["talk"] * 12
    labels = ["plain"] * 10 + ["polite"] * 2 + ["plain"] * 2 + ["polite"] * 10
    rows = [generator.multinomial(100, [0.7, 0.1, 0.1, 0.1] if s == "law" else [0.1, 0.1, 0.1, 0.7]) for s in strata]
    alone = against_chance(table(rows), labels, [""] * 24, shuffles=99, seed=0)
    within = against_chance(table(rows), labels, strata, shuffles=99, seed=0)
    assert alone.mean.p == 0.01
    assert within.mean.p > 0.05
    assert within.mean.bits < 0.1 * alone.mean.bits


def test_nothing_to_compare():
    counts = table([[1, 2], [3, 4], [5, 6]])
    assert against_chance(counts, ["a"] * 3, [""] * 3, shuffles=19, seed=0) is None
    assert against_chance(counts, [None] * 3, [""] * 3, shuffles=19, seed=0) is None
    assert against_chance(counts[:, :0], ["a", "a", "b"], [""] * 3, shuffles=19, seed=0) is None


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_chance(seed):
    counts, labels = planted(8, 0.1, seed=0)
    one, two = (against_chance(counts, labels, [""] * 8, shuffles=19, seed=seed) for _ in range(2))
    assert one == two
    assert 0 < one.mean.p <= 1


def test_given_the_token_a_router_that_looks_it_up_tells_nothing():
    # two tokens, two experts: token 0 always goes to expert 0, token 1 to expert 1, and law has more of token 0
    looked_up = np.array([[[9, 0], [0, 1]], [[2, 0], [0, 7]]])
    labels = np.array(["law", "talk"])
    assert information(looked_up.sum(1)[:, None], labels, np.array(["", ""]))[0] > 0.2
    assert information_given_token(looked_up, labels) == 0
    # the same token goes to another expert in talk: one bit for it, none for the other token
    by_context = np.array([[[4, 0], [0, 4]], [[0, 4], [0, 4]]])
    assert information_given_token(by_context, labels) == pytest.approx(0.5)


def test_given_the_token_chance_is_held_against_the_truth():
    generator = np.random.default_rng(0)
    labels = ["law", "talk"] * 10
    by_token = [generator.multinomial(20, share, 20) for share in ([0.7, 0.2, 0.1], [0.1, 0.2, 0.7])]
    lookup = np.stack(by_token, axis=1)
    found = token_against_chance([lookup], labels, shuffles=99, seed=0)
    assert found.mean.p > 0.05
    assert found.mean.bits == pytest.approx(found.mean.chance, abs=0.02)
    turned = lookup.copy()
    turned[::2] = lookup[::2, :, ::-1]  # law sends the same tokens elsewhere
    assert token_against_chance([lookup, turned], labels, shuffles=99, seed=0).layers[1].p == 0.01


def test_given_the_token_nothing_to_compare():
    assert token_against_chance([np.ones((3, 2, 2), int)], ["a", "a", "b"], shuffles=19, seed=0) is None
    assert token_against_chance([], ["a", "a", "b", "b"], shuffles=19, seed=0) is None
