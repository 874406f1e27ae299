import json
import math
import time

import pytest
import torch

from yatsude.train import watch
from yatsude.train.settings import WatchSettings
from yatsude.train.sinks import need
from yatsude.train.watch import Expected, Watch

LOADS = torch.zeros(0, 0)


def advance_of(seconds, busy=False, **more):
    """A step that takes so long, waiting or computing."""
    taken = []

    def advance():
        taken.append(1)
        end = time.perf_counter() + seconds
        while busy and time.perf_counter() < end:
            pass
        time.sleep(max(end - time.perf_counter(), 0))
        return {"step": len(taken), "tokens": 100 * len(taken), **more}, LOADS

    return advance


def test_a_step_comes_with_what_it_took():
    expected = Expected(seconds=0.01, flops=1e6, peak=1e10, workers=0)
    figures, loads = Watch(expected).timed(advance_of(0.02))
    machine = figures["machine"]
    assert loads is LOADS
    assert machine["planned"] == 0.01
    assert 0.02 <= machine["seconds"] < 1
    assert machine["tokens_per_second"] == pytest.approx(100 / machine["seconds"], rel=1e-3)
    assert machine["mfu"] == pytest.approx(machine["tokens_per_second"] * 1e6 / 1e10, rel=1e-3)
    assert machine["waiting"] > 0.5
    assert machine["peak_memory"] >= machine["memory"] > 1e7
    json.dumps(figures)


def test_a_thread_that_computes_does_not_wait():
    """The least of several: others use this machine."""
    watched, advance = Watch(Expected(workers=0)), advance_of(0.01, busy=True)
    assert min(watched.timed(advance)[0]["machine"]["waiting"] for _ in range(20)) < 0.3


def test_nothing_is_made_up():
    machine = Watch().timed(advance_of(0.0))[0]["machine"]
    assert not {"planned", "mfu", "peak"} & machine.keys()
    assert Watch().phrase() == ""
    assert math.isnan(Watch().summary()["step_seconds"])


def test_what_steps_take_is_said_once_beside_the_plan(monkeypatch):
    said = []
    monkeypatch.setattr(watch, "say", said.append)
    watched = Watch(Expected(seconds=1.1))
    for taken in (9.0, *[1.21] * 20):  # the first step is slow
        watched._count(taken, 0.05)
    assert said == ["a step takes 1.21 s, planned 1.1 s (-9 %)"]
    assert watched.summary() == {"step_seconds": 1.21, "planned_step_seconds": 1.1}
    slow = Watch()
    for _ in range(20):
        slow._count(50.0, 0.4)
    assert said[1:] == ["a step takes 50 s, 40 % of it waiting"]


def test_a_sink_that_fails_is_told_and_left(monkeypatch, tmp_path, settings):
    class Sink:
        def __init__(self, name):
            self.name, self.got, self.closed = name, [], False

        def write(self, step, figures):
            self.got.append((step, figures))
            if self.name == "bad":
                raise ValueError("full")

        def close(self):
            self.closed = True

    sinks, said = {name: Sink(name) for name in ("bad", "good")}, []
    monkeypatch.setattr(watch, "open_sinks", lambda names, folder, step: dict(sinks))
    monkeypatch.setattr(watch, "say", said.append)
    watched = Watch(sinks=("bad", "good"))
    with watched.shown(settings, tmp_path, 0, leads=True):
        for number in (1, 2):
            watched.hear({"step": number, "loss": 2.0})
    assert sinks["good"].got == [(1, {"loss": 2.0}), (2, {"loss": 2.0})]
    assert sinks["good"].closed
    assert len(sinks["bad"].got) == 1
    assert said == ["watch.sinks: bad gets no more figures of this run: ValueError('full')"]


def test_on_a_terminal_a_board_is_drawn_from_the_log(monkeypatch, tmp_path, loop_in, settings):
    shown = []
    real = watch.board

    def board(view):
        shown.append(view)
        return real(view)

    monkeypatch.setattr(watch, "board", board)
    monkeypatch.setattr("yatsude.progress.sys.stderr.isatty", lambda: True, raising=False)
    loop_in(tmp_path).run()
    assert shown[0].ended
    assert shown[0]._score["step"] == settings.steps


def test_a_package_that_is_missing_announces_itself(monkeypatch):
    from yatsude.errors import MachineError, RecipeError

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, extra in (("tensorboard", "watch"), ("mlflow", "mlflow"), ("wandb", "wandb")):
        with pytest.raises(
            MachineError, match=rf"the package {name} is missing; run: pip install 'yatsude\[{extra}\]'"
        ):
            need((name,))
    with pytest.raises(RecipeError, match="unknown 'tensorbord'; did you mean 'tensorboard'"):
        WatchSettings(sinks=("tensorbord",))
