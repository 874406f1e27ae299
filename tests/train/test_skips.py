from hypothesis import given
from hypothesis import strategies as st

from yatsude.train.skips import Skip, Skips

ranges = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=6)


@given(ranges)
def test_steps_take_the_batches_that_are_left_in_order(tmp_path_factory, spans):
    skips = Skips(tmp_path_factory.getbasetemp())
    for first, more in spans:
        skips.add(Skip(first, first + more, 0, ""))
    gone = {n for first, more in spans for n in range(first, first + more + 1)}
    left = [n for n in range(100) if n not in gone]
    assert [skips.batch(step) for step in range(40)] == left[:40]


def test_the_file_and_a_state_are_read_once(tmp_path):
    skips = Skips(tmp_path / "checkpoints")
    assert skips.read() == []
    skips.add(Skip(3, 4, 3, "loss is nan at step 4"))
    skips.write()
    again = Skips(tmp_path / "checkpoints")
    again.restore(again.read())
    again.restore(skips.state())
    assert again.records == skips.records
