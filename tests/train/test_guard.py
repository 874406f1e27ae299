import collections
import math
import random

import pytest

from yatsude.errors import TrainingError
from yatsude.train.guard import Guard, SpikeError


@pytest.mark.parametrize(("loss", "norm", "what"), [(math.nan, 1.0, "loss is nan"), (1.0, math.inf, "norm is inf")])
def test_what_is_no_number_stops_at_once(loss, norm, what):
    guard = Guard("train")
    guard.watch(1, 3.0, 1.0)
    with pytest.raises(
        TrainingError, match=rf"{what} at step 2; every checkpoint is from before it: lower train\.optimizer"
    ):
        guard.watch(2, loss, norm)


def test_a_climbing_loss_stops_and_is_not_saved_before():
    guard = Guard("train")
    for step in range(100):
        guard.watch(step, 3.0, 1.0)
    assert guard.good
    steps = iter(range(100, 400))
    with pytest.raises(TrainingError, match=r"loss diverges: 4\.5\d at step 11\d after 3\.00 before"):
        collections.deque(guard.watch(step, 8.0, 1.0) for step in steps)
    assert not guard.good
    assert next(steps) < 130


def test_a_run_that_ends_in_a_climb_is_refused():
    guard = Guard("train")
    for step in range(100):
        guard.watch(step, 3.0, 1.0)
    guard.end()
    while guard.good:
        guard.watch(100, 8.0, 1.0)
    with pytest.raises(TrainingError, match=r"the loss ends at 3\.\d+ after 3\.00 before; no model is written: lower"):
        guard.end()


def test_a_noisy_or_a_slowly_falling_loss_goes_on():
    guard = Guard("train")
    for step in range(1000):
        guard.watch(step, 9.0 - step / 200 + 2 * (-1) ** step, 1.0)
    assert guard.good


def test_the_first_steps_may_climb():
    guard = Guard("train")
    for step in range(10):
        guard.watch(step, 3.0 + 20 * step, 1.0)


def test_a_restored_guard_remembers():
    one, other = Guard("train"), Guard("train")
    for step in range(60):
        one.watch(step, 3.0, 1.0)
    other.restore(one.state())
    for guard in (one, other):
        guard.watch(60, 5.0, 1.0)
    assert one.state() == other.state()


def test_the_table_that_holds_the_rates_is_named():
    with pytest.raises(TrainingError, match=r"lower tune\.optimizer\.rate and muon_rate"):
        Guard("tune").watch(1, math.nan, 1.0)


def noisy(guard, steps=200):
    generator = random.Random(0)
    for step in range(steps):
        guard.watch(step, 3.0 + generator.gauss(0, 0.05), 1.0)


def test_a_loss_far_above_those_before_is_a_spike_where_it_is_asked_for():
    careful, plain = Guard("train", spikes=True), Guard("train")
    for guard in (careful, plain):
        noisy(guard)
    with pytest.raises(SpikeError, match=r"loss spikes: 3\.80 at step 200, 3\.0\d ± 0\.0\d in the steps before"):
        careful.watch(200, 3.8, 1.0)
    plain.watch(200, 3.8, 1.0)


def test_noise_and_a_first_fall_are_no_spike():
    guard = Guard("train", spikes=True)
    for step in range(1000):
        guard.watch(step, 3.0 + 6.0 * 0.99**step + random.Random(step).gauss(0, 0.3), 1.0)


def test_a_guard_from_before_there_were_spikes_waits_for_its_deviation():
    guard = Guard("train", spikes=True)
    guard.restore([3.0, 3.0, 100.0])
    guard.watch(1, 5.0, 1.0)
