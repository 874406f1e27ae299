import torch

from yatsude.model.rope import Rotary, rotate


def rotated(x, positions, theta=100.0):
    return rotate(x, Rotary(x.shape[-1], theta)(positions))


def test_position_zero_turns_nothing():
    x = torch.randn(1, 1, 2, 8)
    assert torch.equal(rotated(x, torch.zeros(1, 1, dtype=torch.int64)), x)


def test_lengths_stay_and_neighbouring_pairs_turn():
    x = torch.zeros(1, 1, 1, 4)
    x[..., 0] = 1
    turned = rotated(x, torch.tensor([[1]]))
    expected = torch.tensor([1.0, 0, 0, 0])
    expected[0], expected[1] = torch.tensor(1.0).cos(), torch.tensor(1.0).sin()
    torch.testing.assert_close(turned[0, 0, 0], expected)


def test_scores_depend_on_the_distance_alone():
    query, key = torch.randn(1, 1, 1, 8).double(), torch.randn(1, 1, 1, 8).double()

    def score(at, distance):
        return (rotated(query, torch.tensor([[at + distance]])) * rotated(key, torch.tensor([[at]]))).sum()

    torch.testing.assert_close(score(3, 5), score(40, 5), rtol=0, atol=1e-5)


def test_float64_is_turned_in_float64():
    x = torch.randn(1, 2, 1, 4, dtype=torch.float64)
    assert rotated(x, torch.tensor([[1, 2]])).dtype == torch.float64
