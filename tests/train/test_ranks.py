"""`yatsude train` on several local ranks, through the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from yatsude.checkpoint import hf
from yatsude.spec.hf import read
from yatsude.spec.parallel import ParallelSettings
from yatsude.train.dryrun import Task, dry_run
from yatsude.train.settings import LoopSettings, OptimizerSettings

STEPS = 12
SETS = [
    "model.preset=pico", f"train.steps={STEPS}", "train.sequences_per_step=8", "train.sequence_length=32",
    "train.evaluations=2", "train.evaluation_documents=4", "train.checkpoint_steps=4", "train.precision=fp32",
    "train.bigram_start=false", "train.candidates=0", "train.workers=1",
]  # fmt: skip


@pytest.fixture
def start(tokens, tmp_path):
    """Start a training in a folder of its own over the same tokens."""

    def make(name, *more, environment=(), torchrun=False, arguments=()):
        run = tmp_path / name
        run.mkdir(exist_ok=True)
        if not (run / "tokenizer").exists():
            (run / "tokenizer").symlink_to(tokens)
        sets = [word for one in (*SETS, *more) for word in ("--set", one)]
        everywhere = {**os.environ, "OMP_NUM_THREADS": "1", **dict(environment)}
        by = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"] if torchrun else ["-m"]
        command = [sys.executable, *by, "yatsude.cli", "train", "--run", str(run), *sets, *arguments]
        return run / "train", subprocess.Popen(command, env=everywhere, stderr=subprocess.PIPE, text=True)

    return make


def places(ranks):
    """Environments of processes that nobody stands over."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**place, "RANK": str(rank)} for rank in range(ranks)]


def finished(started):
    folder, process = started
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told
    return folder


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "load" in line]


def test_ranks_train_as_one_process_does(start):
    alone = finished(start("alone"))
    for name, sets in {"dp2": ["parallel.dp=2", "parallel.ep=2"], "pp2": ["parallel.pp=2"]}.items():
        folder = finished(start(name, *sets))
        assert losses(folder) == pytest.approx(losses(alone), rel=1e-4)
        ours, theirs = (hf.load(place / "model", torch.float32).state_dict() for place in (folder, alone))
        assert all(torch.allclose(ours[key], theirs[key], atol=2e-3) for key in theirs)


def test_ranks_say_what_the_plan_says_of_them(start):
    folder, process = start("watched", "parallel.dp=2", "parallel.ep=2")
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told
    assert "on 2 ranks (measured in" in told
    assert told.count("a step takes") == 2  # once after ten steps, once at the end; by one rank
    rates = json.loads((folder / "rates.json").read_text())
    assert rates["processes"] == 2
    assert rates["link"] > 1e5
    log = map(json.loads, (folder / "log.jsonl").open())
    assert all(line["machine"]["planned"] > 0 for line in log if "loss" in line)
    counts = json.loads((folder / "model" / "manifest.json").read_text())["counts"]
    assert counts["step_seconds"] > 0
    assert counts["planned_step_seconds"] > 0


@pytest.mark.soak
def test_a_rank_that_is_killed_ends_the_job_and_another_layout_goes_on(start):
    long = "train.steps=24"
    whole = finished(start("whole", "parallel.dp=2", long))
    folder, process = start("cut", "parallel.dp=2", "launch.restarts=0", long)
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*/complete.json")):
        assert time.monotonic() < deadline, "no checkpoint was written"
        assert process.poll() is None, "the job ended by itself"
        time.sleep(0.02)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert "was killed by signal 9 (SIGKILL) after step" in told
    assert "the same command goes on from the last good checkpoint" in told
    folder = finished(start("cut", "parallel.pp=2", long))
    assert losses(folder) == pytest.approx(losses(whole), rel=1e-3)


def test_ranks_with_other_settings_are_named(start):
    """Started by torchrun, as somebody would who has changed the recipe on one machine alone."""
    folder, process = start("ranks", "parallel.dp=2", torchrun=True)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert (folder / "model" / "config.json").is_file()
    place = places(2)
    ranks = [start("other", "parallel.dp=2", f"train.seed={rank}", environment=place[rank])[1] for rank in range(2)]
    told = "".join(process.communicate(timeout=120)[1] for process in ranks)
    assert [process.returncode for process in ranks] == [1, 1]
    assert told.count("rank 1 has train.seed = 1, rank 0 0; start") == 1  # once on a machine
    assert "start all ranks with one recipe" in told.replace("\n", " ")


def test_a_folder_without_tokens_is_told_once(start, tmp_path):
    _, process = start("none", "parallel.dp=2")
    (tmp_path / "none" / "tokenizer").unlink()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert told.count("expected the output of 'yatsude tokenizer'") == 1
    assert "starting again" not in told


def test_a_machine_that_comes_back_with_restart_forgets_nothing(start):
    """The command of the beginning, given anew on the first machine alone."""
    folder = finished(start("ranks", "parallel.dp=2"))
    before = (folder / "log.jsonl").read_bytes()
    words = [("--restart",), ()]
    more = [
        start("ranks", "parallel.dp=2", environment=place, arguments=word)
        for place, word in zip(places(2), words, strict=True)
    ]
    assert all(finished(one) == folder for one in more)
    assert (folder / "log.jsonl").read_bytes().startswith(before)


def test_one_process_goes_on_for_ranks_and_ranks_for_one_process(start):
    """Layouts like any others: 8 steps by one, 8 by two, 8 by one, and all by one."""
    alone = losses(finished(start("alone", "train.steps=24", "train.optimizer.muon=true")))
    sets = {}
    for steps, layout in ((8, ()), (16, ("parallel.dp=2", "parallel.ep=2")), (24, ())):
        folder, process = start("moved", "train.steps=24", "train.optimizer.muon=true", *layout)
        if steps < 24:
            while not (folder / f"checkpoints/step-{steps:08d}").exists():
                assert process.poll() is None, "it ended by itself"
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
        sets[steps] = told
        assert process.returncode == (0 if steps == 24 else 130), told
    assert losses(folder) == pytest.approx(alone, rel=1e-4)
    assert "resuming" in sets[16]
    assert "resuming" in sets[24]


def test_what_is_exchanged_is_what_the_dry_run_says(start):
    sets = "parallel.dp=2", "parallel.ep=2", "parallel.recompute=full"
    folder = finished(start("counted", *sets, "train.precision=bf16", "train.optimizer.muon=false"))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    (counted,) = (line["traffic"] for line in log if "traffic" in line)
    train = LoopSettings(sequences_per_step=8, sequence_length=32, optimizer=OptimizerSettings(muon=False))
    layout = ParallelSettings(dp=2, ep=2, recompute="full")
    (played,) = dry_run(Task(config=read(folder / "model"), train=train, layout=layout), [0])
    said = {kind: list(pair) for kind, pair in played.step.exchanged.items()}
    assert counted.keys() == said.keys()
    assert counted.pop("all-to-all")[0] == said.pop("all-to-all")[0]  # its bytes are the routers' choice
    assert counted == said
