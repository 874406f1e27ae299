"""The watch over ranks, with a store in this process and ranks that are threads."""

import json
import os
import threading
import time

import pytest
from torch.distributed import DistStoreError, HashStore

from yatsude.spec.launch import HUNG, LOST
from yatsude.train import pulse
from yatsude.train.pulse import END, Pulse

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def ended(monkeypatch):
    """Exit codes of ranks that ended; watches are quick."""
    codes = []

    def end(code):
        codes.append(code)
        raise SystemExit

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(pulse, "BEAT_S", 0.05)
    monkeypatch.setattr(pulse, "GRACE_S", 0.2)
    monkeypatch.delenv("GROUP_RANK", raising=False)
    return codes


@pytest.fixture
def ranks(tmp_path):
    """Makes ranks that share a store; they are closed in the end."""
    store, made = HashStore(), []

    def make(count, watching, limit_s=0.0, store=store):
        found = [Pulse(store, rank, count, tmp_path, limit_s) for rank in range(count)]
        made.extend(found)
        for rank in watching:
            found[rank].start()
        return found

    yield make
    for one in made:
        one.close()
    for thread in threading.enumerate():
        if thread.name == "pulse":
            thread.join()


def wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing has come"
        time.sleep(0.01)


def test_a_rank_that_gives_no_sign_of_life_ends_the_job(ranks, ended, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(pulse, "SILENT_S", 0.5)
    ranks(3, watching=[0, 1])
    wait(lambda: len(ended) == 2)
    assert ended == [HUNG, HUNG]
    told = " ".join(capfd.readouterr().err.split())
    assert told.count("no sign of life for 0.5 s: rank 2 (") == 1
    assert "answers no more after step 0" in told
    assert "rank 0 (" not in told
    assert "in _watch" in (tmp_path / "hangs" / "rank-00001.txt").read_text()


def test_ranks_that_beat_are_left_alone(ranks, ended, monkeypatch):
    monkeypatch.setattr(pulse, "SILENT_S", 0.5)
    found = ranks(3, watching=[0, 1, 2])
    before = json.loads(found[0]._store.get("beat/1"))["count"]
    time.sleep(1.5)
    assert ended == []
    assert json.loads(found[0]._store.get("beat/1"))["count"] > before + 3


def test_a_rank_behind_the_others_is_named(ranks, ended, capfd):
    first, second = ranks(2, watching=[0, 1], limit_s=0.4)
    for one in (first, second, first):
        one.begin_step(one.step)
        one.end_step()
    first.phase_now = second.phase_now = "gradient"
    wait(lambda: len(ended) == 2)
    told = " ".join(capfd.readouterr().err.split())
    assert told.count("no step was finished for 0.4 s: rank 1 (") == 1
    assert "is behind after step 1, in 'gradient'" in told


class Gone(HashStore):
    """A store whose process has ended, from some moment on."""

    gone = False

    def set(self, key, value):
        if self.gone:
            raise DistStoreError("gone")
        super().set(key, value)


def test_without_the_store_a_rank_ends_unless_it_was_about_to(ranks, ended):
    store = Gone()
    first, second = ranks(2, watching=[0, 1], store=store)
    store.gone = True
    second.close()
    wait(lambda: ended == [LOST])
    assert first._thread.name == "pulse"


def test_what_counts_as_a_hang_follows_from_the_usual_step(tmp_path):
    one = Pulse(HashStore(), 0, 1, tmp_path)
    assert one.limit_s == pulse.PATIENCE * pulse.LEAST_S  # the first step
    one._durations.extend([50.0, 60.0, 400.0])
    one.phase_now = "gradient"
    assert one.limit_s == 600
    with one.phase("score"):
        assert one.limit_s == pulse.PATIENCE * 600
    with one.phase(END):
        assert one.limit_s == float("inf")
    assert Pulse(HashStore(), 0, 1, tmp_path, limit_s=7.0).limit_s == pulse.PATIENCE * 7
