import dataclasses
import json

import pytest
import torch

from yatsude.plan.rates import calibrated, rates
from yatsude.spec.counts import training_flops
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset
from yatsude.train import forecast
from yatsude.train.settings import TrainSettings
from yatsude.train.workers import Workers

CONFIG, SETTINGS = preset("pico"), TrainSettings(sequence_length=32, sequences_per_step=8)
CPU = rates(accelerator("cpu"))


def expect(folder, **more):
    with Workers(2) as workers:
        return forecast.expect(CONFIG, SETTINGS, torch.float32, folder, workers=workers, **more)


def test_a_run_begins_with_what_the_plan_says(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(forecast, "cores", lambda: 2)
    expected = expect(tmp_path)
    assert 0 < expected.seconds < 60
    assert expected.workers == 2
    assert expected.flops == training_flops(CONFIG, 32)
    page = json.loads((tmp_path / "rates.json").read_text())
    assert expected.peak == pytest.approx(2 * page["matrix"])
    assert page["threads"] == 2
    assert "plan: a step should take" in capsys.readouterr().err
    assert calibrated(CPU, tmp_path / "rates.json").matrix == page["matrix"]
    monkeypatch.setattr(forecast, "calibrate", None)  # a run that goes on does not measure again
    assert expect(tmp_path) == expected
    sampled = expect(tmp_path, scored=64)
    assert sampled.seconds < expected.seconds
    assert sampled.flops == expected.flops - 6 * 32 * (512 - 64)


@pytest.mark.parametrize("text", ["{", "[]", '{"machine": "another", "matrix": 1}'])
def test_rates_of_another_machine_are_measured_again(tmp_path, text):
    (tmp_path / "rates.json").write_text(text)
    assert expect(tmp_path).seconds > 0
    assert json.loads((tmp_path / "rates.json").read_text())["precision"] == "float32"


def test_what_cannot_be_said_ends_no_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(forecast, "calibrate", lambda *_, **__: 1 / 0)
    assert expect(tmp_path) == forecast.Expected(workers=2)
    assert "plan: nothing measured, so nothing said of this run: ZeroDivisionError" in capsys.readouterr().err
    monkeypatch.setattr(forecast, "calibrate", lambda *_, **__: {"matrix": 1e10})
    monkeypatch.setattr(forecast, "step", lambda *_: {}["x"])
    assert expect(tmp_path) == forecast.Expected(workers=2)
    assert "plan: nothing said of this run: 'x'" in capsys.readouterr().err


def test_more_threads_than_cores_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "cores", lambda: 2)
    alone = expect(tmp_path)
    monkeypatch.setattr(forecast, "cores", lambda: 1)
    crowded = expect(tmp_path)
    assert crowded.seconds == pytest.approx(2 * alone.seconds)
    assert crowded.peak == pytest.approx(alone.peak / 2)


def test_workers_share_a_step_and_ranks_talk():
    reached = dataclasses.replace(CPU, latency=1e-4)
    one, two = (forecast.forecast(CONFIG, SETTINGS, reached, workers=n) for n in (1, 2))
    assert one / 2 <= two < one
    many = forecast.forecast(CONFIG, SETTINGS, reached, parallel=ParallelSettings(dp=2, ep=2))
    slow = dataclasses.replace(reached, latency=1e-2)
    assert forecast.forecast(CONFIG, SETTINGS, slow, parallel=ParallelSettings(dp=2, ep=2)) > many + 0.01
