import json

import pytest

from yatsude.errors import DataError
from yatsude.evaluate import curve
from yatsude.evaluate.results import Bits, NgramBits

from .conftest import write_log


def ngram(order, level):
    return NgramBits(order=order, kinds={}, validation=Bits(100 * level, 100))


def test_a_log_is_read_and_its_lines_are_crossed(tmp_path):
    log = write_log(tmp_path, [5.0] * 30, [4.0, 3.0, 2.5], documents=7)
    assert curve.evaluation_documents(log) == 7
    found = curve.read(log, [ngram(2, 4.5), ngram(3, 3.5), ngram(4, 1.0)])
    assert found.tokens == 30 * 64
    assert found.score_minutes == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    before, crossed, never = found.crossings
    assert before.before_first
    assert before.minute == pytest.approx(1 / 6)
    assert crossed.minute == pytest.approx(1 / 4)
    assert never.minute is None


def test_long_curves_are_thinned_without_changing_their_mean(tmp_path):
    losses = [float(n) for n in range(800)]
    found = curve.read(write_log(tmp_path, losses, [3.0] * 80))
    assert len(found.losses) == curve.POINTS
    assert sum(found.losses) / len(found.losses) == pytest.approx(399.5)
    assert found.crossings == ()


def test_no_recipe_no_line(tmp_path):
    assert curve.evaluation_documents(tmp_path / "log.jsonl") == 0
    log = write_log(tmp_path, [5.0] * 10, [3.0])
    assert curve.read(log, [NgramBits(order=3, kinds={}, validation=Bits(0, 0))]).crossings == ()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no log at"), ("x\n", "is no log"), ("{}\n", "no training step")]
)
def test_what_is_no_log_is_said(tmp_path, content, message):
    path = tmp_path / "log.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        curve.read(path)


def test_a_line_counts_as_crossed_only_if_the_curve_stays_below(tmp_path):
    log = write_log(tmp_path, [5.0] * 40, [4.0, 3.0, 4.0, 2.0])
    (crossed,) = curve.read(log, [ngram(3, 3.5)]).crossings
    assert crossed.minute == pytest.approx(32.5 / 60)
    (lost,) = curve.read(log, [ngram(3, 1.9)]).crossings
    assert lost.minute is None


def test_how_even_the_load_was_while_training(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [[[0.5, 1.5], [1.0, 1.0]], [[1.0, 1.0], [0.9, 1.1]]]
    lines = [{"step": n + 1, "loss": 1.0, "tokens": 1, "seconds": n, "load": load} for n, load in enumerate(rows)]
    lines[1]["drift"] = 0.25
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = curve.read(path)
    assert (found.busiest, found.idlest, found.drift) == ([1.5, 1.1], [0.5, 0.9], 0.25)


def test_a_model_without_experts_has_no_load_to_show(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 1.0, "tokens": 1, "seconds": 1, "load": []}\n', encoding="utf-8")
    assert curve.read(path).busiest == []
