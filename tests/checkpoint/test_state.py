import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude.checkpoint import state, sums
from yatsude.errors import CheckpointError, MachineError

NOBODY = 999_999_999
"""The number of a process that there is not."""
PAGE = {"step": 3, "rates": [0.1, 1e-300, 1 / 3], "text": "日本語", "none": None}


def some_tensors():
    shared = torch.randn(4, 6)
    return {
        "weights": torch.randn(5, 3),
        "halves": torch.randn(7).bfloat16(),
        "transposed": torch.randn(4, 2).T,
        "view": shared[1:3],
        "again": shared,
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "generator": torch.get_rng_state(),
        "empty": torch.zeros(0, 4),
        "not numbers": torch.tensor([torch.nan, torch.inf, -0.0]),
    }


def same(one, other):
    return one.dtype == other.dtype and torch.equal(
        one.contiguous().view(-1).view(torch.uint8), other.view(-1).view(torch.uint8)
    )


def put(root, step, keep=None):
    state.save(state.step_folder(root, step), {"step": torch.tensor([step])}, {"step": step})
    if keep:
        state.prune(state.step_folder(root, step), keep)


def newest(root):
    tensors, page = state.latest(root)
    assert tensors["step"].item() == page["step"]
    return page["step"]


def test_a_state_comes_back_bit_for_bit(tmp_path):
    tensors = some_tensors()
    state.save(tmp_path / "a", tensors, PAGE)
    read, page = state.load(tmp_path / "a")
    assert page == PAGE
    assert read.keys() == tensors.keys()
    assert all(same(tensors[name].reshape(-1), read[name].reshape(-1)) for name in tensors)
    assert all(tensors[name].shape == read[name].shape for name in tensors)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans()))
def test_any_page_comes_back(tmp_path_factory, page):
    folder = tmp_path_factory.mktemp("state") / "a"
    state.save(folder, {}, page)
    assert state.load(folder) == ({}, page)


def test_the_newest_is_found_and_older_ones_go(tmp_path):
    assert state.latest(tmp_path / "none") is None
    for step in (5, 20, 100):
        put(tmp_path, step)
    assert newest(tmp_path) == 100
    state.prune(tmp_path / "step-00000100", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000100"]


SCORES = {10: 3.1, 20: 2.9, 30: 3.0, 40: None, 50: 2.95}
KEPT = [
    ({"last": 1}, {50}),
    ({"last": 2}, {40, 50}),
    ({"last": 9}, {10, 20, 30, 40, 50}),
    ({"last": 1, "every": 20}, {20, 40, 50}),
    ({"last": 1, "best": True}, {20, 50}),
    ({"last": 1, "every": 30, "best": True}, {20, 30, 50}),
    ({"last": 4, "every": 25, "best": True}, {20, 30, 40, 50}),
]


@pytest.mark.parametrize(("policy", "stay"), KEPT)
def test_which_states_stay(policy, stay):
    assert state.kept(SCORES, **policy) == stay


@pytest.mark.parametrize(("policy", "stay"), KEPT)
def test_they_stay_on_disk_whenever_it_is_done(tmp_path, policy, stay):
    """Pruned after every write as it is in a run; a state once gone cannot come back."""
    for step, score in SCORES.items():
        folder = state.step_folder(tmp_path, step)
        state.save(folder, {}, {"step": step, "bits_per_character": score})
        state.prune(folder, policy["last"], policy.get("every", 0), policy.get("best", False))
    assert {state._step(folder) for folder in state.steps(tmp_path)} == stay


def test_the_best_of_equals_is_the_last_and_a_score_that_is_none_is_not_the_best():
    assert state.kept({1: 2.0, 2: 2.0, 3: float("nan"), 4: None}, 1, best=True) == {2, 4}
    assert state.kept({1: None, 2: None}, 1, best=True) == {2}


def test_states_after_a_step_are_forgotten_but_the_last_one_stays(tmp_path):
    for step in (10, 20, 30):
        put(tmp_path, step)
    state.forget_after(tmp_path, 25)
    assert newest(tmp_path) == 20
    state.forget_after(tmp_path, 5)
    assert newest(tmp_path) == 10


def corrupt(folder, name="tensors.safetensors", at=-1):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (corrupt, "tensors.safetensors is not what was written"),
        (lambda folder: corrupt(folder, "page.json"), "page.json is not what was written"),
        (lambda folder: os.truncate(folder / "tensors.safetensors", 50), "has 50 bytes"),
        (lambda folder: (folder / "page.json").unlink(), "page.json is missing"),
        (lambda folder: (folder / "complete.json").unlink(), "complete.json is missing"),
        (lambda folder: (folder / "complete.json").write_text("{"), "complete.json is damaged"),
        (lambda folder: (folder / "complete.json").write_text("{}"), "complete.json is damaged"),
    ],
)
def test_a_damaged_one_is_reported_and_the_one_before_is_used(tmp_path, capsys, damage, words):
    put(tmp_path, 1)
    put(tmp_path, 2)
    last = tmp_path / "step-00000002"
    damage(last)
    assert newest(tmp_path) == 1
    said = capsys.readouterr().err
    assert "step-00000002" in said
    assert words in said
    with pytest.raises(CheckpointError, match="step-00000002") as caught:
        state.load(last)
    assert words in str(caught.value)


def test_when_all_are_damaged_that_is_an_error(tmp_path):
    for step in (1, 2):
        put(tmp_path, step)
        corrupt(state.step_folder(tmp_path, step))
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        state.latest(tmp_path)


def test_pruning_never_prefers_a_damaged_newer_one(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 9)
    corrupt(tmp_path / "step-00000009")
    put(tmp_path, 2)
    (tmp_path / f".step-00000007.{NOBODY}.part").mkdir()
    state.prune(tmp_path / "step-00000002", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    with pytest.raises(CheckpointError, match="keep 0"):
        state.prune(tmp_path / "step-00000002", 0)


def test_a_state_is_summed_once_to_be_read_and_not_at_all_to_be_kept(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        put(tmp_path, step)
    summed = []
    real = sums.sha256_of
    monkeypatch.setattr(sums, "sha256_of", lambda path: summed.append(path.name) or real(path))
    state.prune(tmp_path / "step-00000003", 2)
    assert state.exists(tmp_path)
    assert summed == []
    assert newest(tmp_path) == 3
    assert sorted(summed) == ["page.json", "tensors.safetensors"]


def test_a_step_moved_aside_and_never_replaced_is_put_back(tmp_path):
    put(tmp_path, 4)
    (tmp_path / "step-00000004").rename(tmp_path / f".step-00000004.{NOBODY}.old")
    assert newest(tmp_path) == 4


def test_a_page_that_json_cannot_hold_leaves_the_old_state(tmp_path):
    put(tmp_path, 1)
    with pytest.raises(TypeError):
        state.save(tmp_path / "step-00000001", {}, {"set": {1}})
    assert state.load(tmp_path / "step-00000001")[1] == {"step": 1}


def test_disk_full_is_one_line_and_leaves_the_old_state(tmp_path, monkeypatch):
    put(tmp_path, 1)

    def full(path, tensors):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(state, "stream", full)
    with pytest.raises(MachineError, match="disk full while writing"):
        put(tmp_path, 2)
    assert newest(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def dies_at(call, action):
    """Run `action` in a child that dies, without any clean-up, at its `call`-th flush or rename; false if it lived."""
    child = os.fork()
    if child == 0:
        calls = iter(range(call))

        def counted(function):
            def count(*args, **kwargs):
                if next(calls, None) is None:
                    os._exit(9)
                return function(*args, **kwargs)

            return count

        os.fsync, os.replace, os.rename = counted(os.fsync), counted(os.replace), counted(os.rename)
        action()
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", [1, 2], ids=["the same step again", "the next step"])
def test_dying_at_every_point_of_a_write_leaves_a_good_state(tmp_path, step):
    deaths = 0
    while True:
        root = tmp_path / str(deaths)
        put(root, 1)
        fresh = {"step": torch.tensor([step])}
        died = dies_at(
            deaths, lambda place=root, new=fresh: state.save(state.step_folder(place, step), new, {"step": step})
        )
        assert newest(root) in (1, step)
        put(root, 3, keep=1)
        assert [path.name for path in root.iterdir()] == ["step-00000003"]
        if not died:
            break
        deaths += 1
    assert deaths >= 4


WRITER = """
import sys, torch
from pathlib import Path
from yatsude.checkpoint import state
torch.set_num_threads(1)
root, step = Path(sys.argv[1]), int(sys.argv[2])
while True:
    step += 1
    values = torch.full((2_000_000,), float(step))
    state.save(state.step_folder(root, step), {"values": values}, {"step": step})
    state.prune(state.step_folder(root, step), 1)
    print(step, flush=True)
"""


def test_killed_at_any_moment_a_good_state_is_found(tmp_path):
    done = 0
    for moment in (0.0, 0.007, 0.013, 0.02):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path, str(done)], stdout=subprocess.PIPE, text=True
        ) as writer:
            done = int(writer.stdout.readline())
            time.sleep(moment)
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
        done = int(rest[-1]) if rest else done
        tensors, page = state.latest(tmp_path)
        assert page["step"] >= done  # what was reported as written is there
        assert torch.equal(tensors["values"], torch.full((2_000_000,), float(page["step"])))
        done = page["step"]
    state.prune(state.step_folder(tmp_path, done), 1)
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{done:08d}"]


def test_no_pickle(tmp_path):
    state.save(tmp_path / "a", {"x": torch.ones(1)}, {})
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"tensors.safetensors", "page.json", "complete.json"}
    assert json.loads((tmp_path / "a" / "page.json").read_text()) == {}
