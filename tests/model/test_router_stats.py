import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yatsude.model.router_stats import layer_loads, relative_load


def test_hand_computed():
    even, lone, halves = layer_loads(torch.tensor([[5, 5, 5, 5], [8, 0, 0, 0], [4, 4, 0, 0]]))
    assert (even.busiest, even.idlest, even.entropy) == pytest.approx((1, 1, 1))
    assert (lone.busiest, lone.idlest, lone.entropy) == pytest.approx((4, 0, 0))
    assert (halves.busiest, halves.idlest, halves.entropy) == pytest.approx((2, 0, 0.5))


@given(st.lists(st.lists(st.integers(0, 10**12), min_size=4, max_size=4), min_size=1, max_size=3))
def test_figures_stay_in_their_bounds(loads):
    table = torch.tensor(loads)
    for row, load in zip(loads, layer_loads(table), strict=True):
        assert 0 <= load.idlest <= load.busiest <= 4 + 1e-9
        assert -1e-9 <= load.entropy <= 1 + 1e-9
        if sum(row):
            assert load.idlest <= 1 + 1e-9 <= load.busiest + 2e-9


def test_a_layer_without_tokens_and_a_model_without_experts():
    assert relative_load(torch.zeros(1, 4, dtype=torch.int64)).tolist() == [[0, 0, 0, 0]]
    assert layer_loads(torch.zeros(1, 4, dtype=torch.int64))[0].entropy == 0
    assert layer_loads(torch.zeros(0, 0, dtype=torch.int64)) == []


def test_one_expert_is_never_uneven():
    assert layer_loads(torch.tensor([[7]]))[0].busiest == 1
