import pytest
import torch

from yatsude.model.rope import Rotary, rotate
from yatsude.spec.rope_scaling import RopeScaling


def rotary(small, width, **changes):
    return Rotary(small(qk_rope_head_dim=width, rope_theta=100.0, **changes))


@pytest.fixture
def rotated(small):
    return lambda x, positions: rotate(x, rotary(small, x.shape[-1])(positions))


def test_position_zero_turns_nothing(rotated):
    x = torch.randn(1, 1, 2, 8)
    assert torch.equal(rotated(x, torch.zeros(1, 1, dtype=torch.int64)), x)


def test_lengths_stay_and_neighbouring_pairs_turn(rotated):
    x = torch.zeros(1, 1, 1, 4)
    x[..., 0] = 1
    turned = rotated(x, torch.tensor([[1]]))
    expected = torch.tensor([1.0, 0, 0, 0])
    expected[0], expected[1] = torch.tensor(1.0).cos(), torch.tensor(1.0).sin()
    torch.testing.assert_close(turned[0, 0, 0], expected)


def test_scores_depend_on_the_distance_alone(rotated):
    query, key = torch.randn(1, 1, 1, 8).double(), torch.randn(1, 1, 1, 8).double()

    def score(at, distance):
        return (rotated(query, torch.tensor([[at + distance]])) * rotated(key, torch.tensor([[at]]))).sum()

    torch.testing.assert_close(score(3, 5), score(40, 5), rtol=0, atol=1e-5)


def test_float64_is_turned_in_float64(rotated):
    x = torch.randn(1, 2, 1, 4, dtype=torch.float64)
    assert rotated(x, torch.tensor([[1, 2]])).dtype == torch.float64


def test_halves_turn_as_neighbours_do_in_another_order(small):
    x = torch.randn(2, 3, 2, 8)
    turns = rotary(small, 8)(torch.arange(3)[None])
    order = [0, 4, 1, 5, 2, 6, 3, 7]  # a number of the first half beside its partner
    apart = torch.empty_like(x)
    apart[..., order] = rotate(x[..., order], turns)
    torch.testing.assert_close(rotate(x, turns, interleaved=False), apart)


def scaling(rope_type, **changes):
    return RopeScaling(rope_type=rope_type, factor=4.0, original_max_position_embeddings=64, **changes)


def test_linear_stretching_divides_positions(small):
    plain, longer = rotary(small, 8), rotary(small, 8, rope_scaling=scaling("linear"))
    torch.testing.assert_close(longer(torch.tensor([[8]])), plain(torch.tensor([[2]])))


@pytest.mark.parametrize("rope_type", ["yarn", "llama3"])
def test_fast_pairs_stay_and_slow_ones_are_slowed_down(small, rope_type):
    changes = {"rope_scaling": scaling(rope_type, beta_fast=4.0)}
    plain, longer = rotary(small, 16), rotary(small, 16, **changes)
    ratio = longer.frequencies(torch.device("cpu")) / plain.frequencies(torch.device("cpu"))
    torch.testing.assert_close(ratio[0], torch.tensor(1.0))
    torch.testing.assert_close(ratio[-1], torch.tensor(0.25))
    assert (ratio.diff() <= 0).all()
