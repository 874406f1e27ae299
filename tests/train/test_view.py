import io

import pytest
from rich.console import Console

from yatsude.train.view import View, sparkline


def step(number, **more):
    return {
        "step": number, "loss": 5 - number / 100, "tokens": 1000 * number, "seconds": 0.5 * number,
        "load": [[0.25, 1.75], [1.0, 1.0]], **more,
    }  # fmt: skip


def drawn(view):
    page = io.StringIO()
    Console(file=page, width=100, color_system=None).print(view)
    return page.getvalue()


def test_a_run_at_a_glance():
    view = View("training", 200)
    assert drawn(view) == "training: no step yet\n"
    machine = {"planned": 0.4, "mfu": 0.5, "peak": 4e11, "memory": 1.5e9, "peak_memory": 2e9, "waiting": 0.125}
    for number in range(1, 51):
        view.add(step(number, machine=machine))
    view.add({"step": 50, "loss": 4.5, "bits_per_character": 2.345})
    text = drawn(view)
    for part in (
        "training, step 50 of 200",
        "25 %",
        "1:15 left",
        "4.500  █",
        "2.345 bits a character",
        "2,000 tokens/s, a step 0.5 s, planned 0.4 s",
        "MFU 50 % of 0.4 TFLOP/s, waiting 12 % of the time",
        "busiest 1.75, idlest 0.25 of the mean",
        "1.50 GB, peak 2.00 GB",
    ):
        assert part in text, part
    assert not view.ended
    view.add(step(200))
    assert view.ended


def test_a_log_without_figures_of_the_machine_is_shown_too():
    """Of an earlier version, of unknown length; with what else a log tells."""
    view = View("old")
    view.add(step(3, load=[]))
    view.add(step(4, load=[[0, 2.0]]))
    view.add({"step": 4, "slow": [7], "host": "b"})
    text = drawn(view)
    assert "old, step 4" in text
    assert "2,000 tokens/s" in text
    assert "busiest 2.00, idlest 0.00 of the mean, 1 without a token" in text
    assert "step 4" in text
    assert "slow [7], host b" in text
    assert "left" not in text


def test_what_only_some_machines_have():
    view = View("training", 3)
    machine = {"memory": 1e9, "peak_memory": 1e9, "cuda_memory": 7e10}
    view.add(step(1, machine=machine))
    assert "70.00 GB on the GPU" in drawn(view)


@pytest.mark.parametrize(("values", "line"), [([], ""), ([3], "▁"), ([2, 2], "▁▁"), ([0, 1, 0.5], "▁█▅")])
def test_curves_of_text(values, line):
    assert sparkline(values) == line


def test_a_long_curve_is_thinned():
    assert len(sparkline(range(1000))) == 40
