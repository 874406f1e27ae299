import pytest
from hypothesis import given
from hypothesis import strategies as st

from yatsude.train.schedule import share

UNIT = st.floats(0, 1)
PART = st.floats(0.01, 1)


@given(UNIT, UNIT, UNIT)
def test_it_is_a_share(done, warmup, decay):
    assert 0 <= share(done, warmup, decay) <= 1


@given(UNIT, UNIT, PART, PART)
def test_it_rises_then_stays_then_falls(one, other, warmup, decay):
    low, high = sorted((one, other))
    if high <= min(warmup, 1 - decay):
        assert share(low, warmup, decay) <= share(high, warmup, decay)
    if low >= max(warmup, 1 - decay):
        assert share(low, warmup, decay) >= share(high, warmup, decay)
    if warmup <= low <= 1 - decay:
        assert share(low, warmup, decay) == pytest.approx(1)


@given(UNIT, PART, PART)
def test_it_has_no_jump(done, warmup, decay):
    step = 1e-6
    assert abs(share(min(done + step, 1), warmup, decay) - share(done, warmup, decay)) < 2 * step / min(warmup, decay)


def test_without_warmup_and_decay_it_is_flat():
    assert [share(x, 0, 0) for x in (0.001, 0.5, 1.0)] == [1, 1, 1]
    assert share(1.0, 0.1, 0.5) == 0
