import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yatsude.train.evenness import STEPS, Evenness


def watch(*windows):
    found = Evenness()
    for load in windows:
        for _ in range(STEPS):
            found.add(load)
    return found


def test_hand_computed():
    found = watch([[1.0, 1.0], [0.5, 1.5]], [[1.0, 1.0], [1.0, 1.0]]).figures()
    assert found == {"busiest": 1.0, "idlest": 1.0, "dead": 0, "drift": 0.125}
    found = watch([[1.0, 1.0], [0.0, 2.0]]).figures()
    assert found == {"busiest": 2.0, "idlest": 0.0, "dead": 1}  # a single window has nothing to drift from


def test_a_window_evens_out_single_steps():
    found = Evenness()
    for step in range(STEPS):
        found.add([[2.0, 0.0]] if step % 2 else [[0.0, 2.0]])
    assert found.figures() == {"busiest": 1.0, "idlest": 1.0, "dead": 0}
    assert found.phrase() == "load 1.00-1.00 of the mean, 0 dead"
    assert found.warnings() == []


def test_a_fault_is_told_once_with_its_place_and_what_to_do():
    found = watch([[1.0] * 4, [0.0, 4.0, 0.0, 0.0]])
    dead, busy = found.warnings()
    assert dead.startswith("balance: expert 1 of mixture layer 2 (and 2 more) got no token in 100 steps;")
    assert busy.startswith("balance: expert 2 of mixture layer 2 did over 3 times the mean in 100 steps;")
    assert all("balance_rate" in line for line in (dead, busy))
    assert found.warnings() == []


def test_less_than_a_window_is_no_fault():
    found = Evenness()
    found.add([[0.0, 2.0]])
    assert found.warnings() == []
    assert found.phrase() == "load 0.00-2.00 of the mean, 1 dead"


@pytest.mark.parametrize("loads", [[], [[]]])
def test_a_model_without_experts(loads):
    found = watch(loads)
    assert (found.figures(), found.phrase(), found.warnings()) == ({}, "", [])


@given(st.lists(st.lists(st.floats(0, 9), min_size=3, max_size=3), min_size=1, max_size=30))
def test_figures_stay_in_their_bounds(steps):
    found = Evenness()
    for load in steps:
        found.add([load])
    figures = found.figures()
    assert 0 <= figures["idlest"] <= figures["busiest"] <= 3
    assert 0 <= figures["dead"] <= 3


def test_a_step_of_a_large_router_costs_little():
    load = torch.ones(58, 256).tolist()
    found = Evenness()
    start = time.process_time()
    for _ in range(STEPS):
        found.add(load)
    found.figures()
    assert (time.process_time() - start) / STEPS < 0.02
