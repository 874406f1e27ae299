"""Faults of a job, in its loop: a run that is cut off, numbers that are none, disks that are full."""

import functools
import json
import os
import socket
import subprocess

import loops
import pytest
from ranks import run

from yatsude.spec.parallel import ParallelSettings

DP2 = {"dp": 2, "ep": 2}
PP2 = {"pp": 2}


def on(layout, function, *args, **more):
    return run(ParallelSettings(**layout).ranks, functools.partial(function, **more), *args)


def soak(*values):
    return pytest.param(*values, marks=pytest.mark.soak)


FOUR = {"dp": 2, "tp": 2, "ep": 4}
ZBV = {"pp": 2, "schedule": "zbv", "stages_per_rank": 2}
HSDP = {"dp": 2, "replicas": 2, "recompute": "full"}
WAYS = [
    (DP2, PP2),
    soak(FOUR, {"pp": 2, "replicas": 2}),
    soak({"cp": 2}, {"dp": 4, "ep": 2}),
    soak(ZBV, {"dp": 2, "cp": 2}),
]


@pytest.mark.parametrize(("one", "other"), WAYS)
def test_a_run_goes_on_in_another_layout_with_the_same_samples_and_losses(tmp_path, one, other):
    """The loop's own path, in float64: cut off after a state and two steps more, and resumed by other ranks."""
    seen, whole = on({}, loops.trained, tmp_path / "whole", {})[0]
    early = on(one, loops.trained, tmp_path / "cut", one, 4 * 8)
    late = on(other, loops.trained, tmp_path / "cut", other)
    for (seen_1, told_1), (seen_2, told_2) in zip(early, late, strict=False):
        resumed = seen_2[0] // 8
        assert resumed in (2, 4)
        assert seen_1[:resumed] + seen_2 == seen
        for ours, theirs in zip(told_1[:resumed] + told_2, whole, strict=True):
            assert ours[0] == pytest.approx(theirs[0], rel=1e-10)
            assert ours[1] == pytest.approx(theirs[1], rel=1e-9)


@pytest.mark.parametrize(
    ("layout", "rank", "name", "kind", "words"),
    [
        (DP2, 1, "layers.2.mlp.experts.down_proj", "gradient", "gradient of layers.2.mlp.experts.down_proj"),
        (DP2, 1, "layers.1.self_attn.o_proj.weight", "weight", "weight layers.1.self_attn.o_proj.weight"),
        (PP2, 0, "layers.1.mlp.x", "output", "layers.1.mlp"),
        soak(FOUR, 2, "layers.3.self_attn.o_proj.weight", "gradient", "gradient of layers.3.self_attn.o_proj.weight"),
        soak(ZBV, 1, "layers.2.mlp.experts.down_proj", "gradient", "gradient of layers.2.mlp.experts.down_proj"),
        soak(HSDP, 3, "lm_head.weight", "gradient", "gradient of lm_head.weight"),
        soak(HSDP, 3, "layers.1.mlp.x", "output", "layers.1.mlp"),
        soak({"cp": 2}, 1, "embed_tokens.weight", "gradient", "gradient of embed_tokens.weight"),
    ],
)
def test_the_rank_is_named_where_numbers_end(tmp_path, layout, rank, name, kind, words):
    told = on(layout, loops.planted, tmp_path, layout, rank, name, kind)
    assert len(set(told)) == 1
    which = "gradient norm" if kind == "gradient" else "loss"
    assert told[0].startswith(f"{which} is nan at step 3, first on rank {rank} ({socket.gethostname()}): {words};")


def test_a_full_disk_of_one_rank_costs_a_state_and_not_the_run(tmp_path):
    for states, errors, end in on(DP2, loops.refusing, tmp_path, DP2, 1, 2):
        assert states == ["step-00000006", "step-00000008"]
        assert [bool(error) for error in errors] == [True, True, False, False]
        assert errors[0].startswith("rank 1 (")
        assert errors[0].endswith("rank-00001.safetensors: No space left on device")
        assert end == ""


def test_a_disk_that_is_full_at_the_end_is_an_error_and_leaves_the_old_state(tmp_path):
    on(DP2, loops.trained, tmp_path, DP2, 5 * 8)
    for states, errors, end in on(DP2, loops.refusing, tmp_path, DP2, 0, 9):
        assert states == ["step-00000002", "step-00000004"]
        assert all(errors)
        assert end.startswith("the last state is not written: rank 0 (")


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_job_goes_on_while_its_disk_is_full(disk):
    for states, errors, logged in on(DP2, loops.filled, disk / "run", DP2, disk):
        assert states == ["step-00000006", "step-00000008"]
        assert [bool(error) for error in errors[1:]] == [True, False, False]  # the first may have come too late
        assert "No space left on device" in errors[1] or "disk full" in errors[1]
        assert logged == list(range(1, 9))


def test_ranks_go_back_over_a_spike_together(tmp_path):
    taken = on(DP2, loops.spiking, tmp_path, DP2, 62, steps=64, checkpoint_steps=25, sequence_length=8)
    assert taken[0] == taken[1]
    assert taken[0][0] == [*range(63), *range(63, 63 + 14)]


def test_a_batch_that_is_no_number_is_left_out_by_every_rank_and_every_layout(tmp_path):
    """By one that meets it, and by one that goes on and never would have: samples and losses are the same."""
    seen, losses = on(DP2, loops.skipping, tmp_path / "a", DP2, (3,))[0]
    assert seen == [n * 8 for n in range(9)]
    skipped = json.loads((tmp_path / "a" / "checkpoints" / "skipped.json").read_text())
    assert [(one["first"], one["last"], one["step"]) for one in skipped] == [(3, 3, 3)]
    assert "gradient norm is nan at step 4, and on no rank when the step is done again" in skipped[0]["why"]
    on(PP2, loops.skipping, tmp_path / "b", PP2, (3,), 4 * 8)  # only the file of what is skipped knows of it
    seen, others = on(DP2, loops.skipping, tmp_path / "b", DP2, ())[0]
    assert [n for n in seen if n >= 16] == [16, 32, 40, 48, 56, 64]
    assert others == pytest.approx(losses, rel=1e-10)


def test_a_state_of_another_model_or_with_other_settings_is_named(tmp_path):
    on(DP2, loops.trained, tmp_path, DP2)
    told = on(DP2, loops.said, tmp_path, DP2, model={"n_shared_experts": 2})
    assert "is a checkpoint of another model: it has layers.1.mlp.shared_experts" in told[1]
    told = on(DP2, loops.said, tmp_path, DP2, sequence_length=8)
    assert "(train.sequence_length: 16 → 8)" in told[0]
    assert told[0].endswith("or go on with the new ones: --allow train.sequence_length")
    told = on(PP2, loops.said, tmp_path, PP2, steps=9, allow=["train.steps"])
    changed = {"train.steps": [8, 9], "parallel.dp": [2, 1], "parallel.pp": [1, 2], "parallel.ep": [2, 1]}
    assert told[0] == [{"step": 8, "changed": changed}]
