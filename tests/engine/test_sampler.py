import collections
import math

import pytest
import torch

from yatsude.engine.sampler import FIRST_LOOK, Drawer, probabilities, sample
from yatsude.engine.settings import SamplingSettings
from yatsude.errors import RequestError

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, 3.0]])


def distribution(logits, settings):
    """Exact probabilities in the order of the vocabulary."""
    kept = probabilities(logits, [settings] * len(logits))
    return kept / kept.sum(-1, keepdim=True)


def test_plain_distribution_is_softmax_over_temperature():
    got = distribution(LOGITS, SamplingSettings(temperature=0.5))
    torch.testing.assert_close(got, torch.softmax(LOGITS / 0.5, -1))


def test_top_k_keeps_the_k_likeliest():
    got = distribution(LOGITS, SamplingSettings(top_k=2))[0]
    whole = math.exp(3) + math.exp(2)
    torch.testing.assert_close(got, torch.tensor([math.exp(2) / whole, 0, 0, 0, math.exp(3) / whole]))


@pytest.mark.parametrize(("top_p", "kept"), [(0.1, {4}), (0.64, {4, 0}), (0.88, {4, 0, 1}), (1.0, {0, 1, 2, 3, 4})])
def test_top_p_keeps_the_smallest_set_that_holds_it(top_p, kept):
    got = distribution(LOGITS, SamplingSettings(top_p=top_p))[0]
    assert set(got.nonzero()[:, 0].tolist()) == kept


def test_top_p_is_a_share_of_what_top_k_left():
    got = distribution(LOGITS, SamplingSettings(top_k=2, top_p=0.73))[0]
    assert set(got.nonzero()[:, 0].tolist()) == {4}


def test_rows_of_one_batch_are_cut_each_by_its_own_settings():
    each = [
        SamplingSettings(**one) for one in ({}, {"top_k": 2}, {"temperature": 0}, {"top_p": 0.5}, {"temperature": 2})
    ]
    together = probabilities(LOGITS.repeat(len(each), 1), each)
    for row, settings in zip(together, each, strict=True):
        torch.testing.assert_close(row / row.sum(), distribution(LOGITS, settings)[0])
    assert (together > 0).sum(-1).tolist() == [5, 2, 1, 1, 5]


def test_a_flat_distribution_over_a_large_vocabulary_is_cut_exactly():
    logits = torch.linspace(0, 0.1, 4 * FIRST_LOOK)[None]
    got = distribution(logits, SamplingSettings(top_p=0.9))[0]
    whole = torch.softmax(logits, -1)[0]
    kept = got > 0
    assert whole[kept].sum() >= 0.9 > whole[kept].sum() - whole[kept].min()
    assert whole[kept].min() > whole[~kept].max()


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 3}])
def test_draws_follow_the_distribution(settings):
    """Chi-square over 20,000 draws; 23.5 is passed once in 10,000 at 4 degrees of freedom."""
    expected = distribution(LOGITS, SamplingSettings(**settings))[0].tolist()
    drawer = Drawer(SamplingSettings(seed=5, **settings))
    draws = 20_000
    drawn = [token for _ in range(draws // 100) for token in sample(LOGITS.repeat(100, 1), [drawer] * 100)[0]]
    counts = collections.Counter(drawn)
    assert all(expected[token] > 0 for token in counts)
    chi = sum((counts[token] - draws * p) ** 2 / (draws * p) for token, p in enumerate(expected) if p)
    assert chi < 23.5


def test_temperature_zero_is_greedy_beside_rows_that_are_not():
    drawers = [Drawer(SamplingSettings(temperature=0)), Drawer(SamplingSettings(temperature=2.0, seed=1))]
    for _ in range(50):
        assert sample(LOGITS.repeat(2, 1), drawers)[0][0] == 4


@pytest.mark.parametrize("settings", [{"temperature": 1e-40}, {"temperature": 1e-38}, {"top_p": 1e-320}])
def test_however_small_temperature_and_top_p_are_the_likeliest_is_left(settings):
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    drawers = [Drawer(SamplingSettings(**settings)), *(Drawer(SamplingSettings()) for _ in range(2))]
    tokens, _ = sample(logits, drawers)
    assert tokens[0] == int(logits[0].argmax())
    assert all(0 <= token < 50 for token in tokens)


def test_a_row_draws_the_same_whatever_its_neighbours():
    def draws(neighbours):
        drawers = [Drawer(SamplingSettings(seed=9)), *(Drawer(SamplingSettings(seed=n, top_p=0.5)) for n in neighbours)]
        return [sample(LOGITS.repeat(len(drawers), 1), drawers[:])[0][0] for _ in range(30)]

    assert draws([]) == draws([]) == draws([1, 2, 3])


def test_bias_and_penalties_change_the_scores_as_documented():
    drawer = Drawer(SamplingSettings(presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((1, 4.0), (4, -100.0))))
    for token in (0, 0, 3):
        drawer.note(token)
    logits = LOGITS[0].clone()
    drawer.adjust(logits)
    assert logits.tolist() == pytest.approx([2 - 0.5 - 0.5, 5.0, 0.0, -1 - 0.75, -math.inf])


def test_logprobs_are_those_of_the_model_itself():
    _, scored = sample(LOGITS, [Drawer(SamplingSettings(temperature=0, logprobs=2, logit_bias=((4, -100.0),)))])
    logprobs = torch.log_softmax(LOGITS[0], -1)
    assert scored[0].token == 0
    assert scored[0].logprob == pytest.approx(logprobs[0].item())
    assert [token for token, _ in scored[0].likeliest] == [4, 0]


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": 2.5}, {"top_p": 0}, {"top_k": -1}, {"max_tokens": 0}, {"stop": ("",)}],
)
def test_a_value_out_of_range_is_named(wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        SamplingSettings(**wrong)
