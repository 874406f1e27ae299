import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from yatsude.model.router_stats import Percentiles, bias_ranges, drift, layer_loads, percentiles, relative_load

LOADS = st.lists(st.lists(st.integers(0, 10**12), min_size=4, max_size=4), min_size=1, max_size=3)


def test_hand_computed():
    even, lone, halves = layer_loads(torch.tensor([[5, 5, 5, 5], [8, 0, 0, 0], [4, 4, 0, 0]]))
    assert (even.busiest, even.idlest, even.entropy, even.dead) == pytest.approx((1, 1, 1, 0))
    assert (lone.busiest, lone.idlest, lone.entropy, lone.dead) == pytest.approx((4, 0, 0, 3))
    assert (halves.busiest, halves.idlest, halves.entropy, halves.dead) == pytest.approx((2, 0, 0.5, 2))


@given(LOADS)
def test_figures_stay_in_their_bounds(loads):
    table = torch.tensor(loads)
    for row, load in zip(loads, layer_loads(table), strict=True):
        assert 0 <= load.idlest <= load.busiest <= 4 + 1e-9
        assert -1e-9 <= load.entropy <= 1 + 1e-9
        assert load.dead == row.count(0)
        if sum(row):
            assert load.idlest <= 1 + 1e-9 <= load.busiest + 2e-9


def test_a_layer_without_tokens_and_a_model_without_experts():
    assert relative_load(torch.zeros(1, 4, dtype=torch.int64)).tolist() == [[0, 0, 0, 0]]
    assert layer_loads(torch.zeros(1, 4, dtype=torch.int64))[0].entropy == 0
    assert layer_loads(torch.zeros(0, 0, dtype=torch.int64)) == []
    assert percentiles([]) == {}


def test_one_expert_is_never_uneven():
    assert layer_loads(torch.tensor([[7]]))[0].busiest == 1


def test_biases_of_routers_that_have_some():
    with_bias, without = nn.Linear(1, 1), nn.Linear(1, 1)
    with_bias.register_buffer("e_score_correction_bias", torch.tensor([0.5, -0.25, 0.0]))
    ranges = bias_ranges([with_bias, without])
    assert ranges == [0.75, None]
    found = layer_loads(torch.tensor([[1, 1], [2, 0]]), ranges)
    assert [layer.bias_range for layer in found] == ranges
    assert percentiles(found)["bias_range"] == Percentiles(0.75, 0.75, 0.75)


def test_percentiles_over_layers_are_interpolated():
    loads = torch.tensor([[100 + n, 100 - n] for n in (0, 10, 20, 30, 40)])
    found = percentiles(layer_loads(loads))
    assert vars(found["busiest"]) == pytest.approx({"p10": 1.04, "p50": 1.2, "p90": 1.36})
    assert vars(found["idlest"]) == pytest.approx({"p10": 0.64, "p50": 0.8, "p90": 0.96})
    assert "bias_range" not in found


def test_drift_is_the_share_that_moved():
    before = torch.tensor([[4, 4, 0], [1, 1, 2], [3, 0, 0]])
    after = torch.tensor([[4, 2, 2], [10, 10, 20], [0, 0, 9]])
    assert drift(before, after) == pytest.approx([0.25, 0.0, 1.0])


@given(LOADS)
def test_drift_has_no_direction_and_stays_in_its_bounds(loads):
    one, other = torch.tensor(loads), torch.tensor(loads).flip(-1)
    assert drift(one, other) == pytest.approx(drift(other, one))
    assert all(-1e-9 <= moved <= 1 + 1e-9 for moved in drift(one, other))
    assert drift(one, one) == [0] * len(loads)
