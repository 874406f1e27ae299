"""The whole stage, in this process and in one that is stopped and killed."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from yatsude import manifest, recipe
from yatsude.checkpoint import hf, state
from yatsude.errors import CheckpointError, DataError, MachineError
from yatsude.spec.settings import ModelSettings, resolve
from yatsude.train.build import build, has_bigram_start
from yatsude.train.monitor import read_log
from yatsude.train.settings import TrainSettings

CHILD = """
import json, os, sys
from pathlib import Path
from unittest import mock
from yatsude.spec.settings import ModelSettings
from yatsude.train.build import build
from yatsude.train.settings import TrainSettings

tokens, folder, page, where, count = sys.argv[1:]
calls = []

def fatal(real):
    def call(*args, **named):
        calls.append(where)
        if len(calls) == int(count):
            os.kill(os.getpid(), 9)
        return real(*args, **named)
    return call

def go():
    build(ModelSettings(preset="pico"), TrainSettings(**json.loads(page)), Path(tokens), Path(folder))

mock.patch("yatsude.train.build.cores", lambda: 1).start()
if where:
    module, _, name = where.rpartition(".")
    real = getattr(__import__("pkgutil").resolve_name(module), name)
    with mock.patch(where, fatal(real)):
        go()
else:
    go()
"""


def child(tokens, folder, settings, where="", count=0):
    page = {key: value for key, value in dataclasses.asdict(settings).items() if key != "optimizer"}
    command = [sys.executable, "-c", CHILD, *map(str, (tokens, folder, json.dumps(page), where, count))]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def run(tokens, folder, settings, **named):
    return build(ModelSettings(preset="pico"), settings, tokens, folder, **named)


def outcome(folder):
    """What must be equal bit for bit: the figures but their times, and the weights."""
    log = [
        {k: v for k, v in line.items() if k not in ("seconds", "pause", "machine")}
        for line in read_log(folder / "log.jsonl")
    ]
    return log, (folder / "model" / "model.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Torch's threads wait for each other at every small product, which is slow on a busy machine."""
    monkeypatch.setattr("yatsude.train.build.cores", lambda: 1)


@pytest.fixture
def long(settings):
    """A run long enough to be hit in the middle."""
    return dataclasses.replace(settings, steps=40, checkpoint_steps=7)


def wait_for_steps(process, folder, steps):
    """Wait until the log of a running child has `steps` lines."""
    path, end = folder / "log.jsonl", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if path.exists() and path.read_bytes().count(b"\n") >= steps:
            return
        time.sleep(0.002)
    pytest.fail(f"the run ended early: {process.communicate()[1]}")


@pytest.mark.parametrize(("number", "workers", "precision"), [
    (signal.SIGINT, 2, "bf16"), (signal.SIGKILL, 1, "fp32"), (signal.SIGKILL, 2, "bf16"),
])  # fmt: skip
def test_stopped_or_killed_and_resumed_equals_uninterrupted(tokens, tmp_path, long, number, workers, precision):
    long = dataclasses.replace(long, workers=workers, precision=precision)
    process = child(tokens, tmp_path / "cut", long)
    wait_for_steps(process, tmp_path / "cut", 12)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    step = read_log(tmp_path / "cut" / "log.jsonl")[-1]["step"]
    assert 10 <= step < 40
    if number != signal.SIGKILL:  # a wish: the state of that very step is there
        assert state.latest(tmp_path / "cut" / "checkpoints")[1]["step"] == step
        assert f"stopped at step {step} of 40" in error
    run(tokens, tmp_path / "cut", long)
    run(tokens, tmp_path / "whole", long)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("yatsude.checkpoint.state.stream", 2),  # before a byte of the second checkpoint
        ("yatsude.checkpoint.state.put", 4),  # tensors written, page not yet vouched for
        ("yatsude.files._flush", 8),
        ("pathlib.Path.replace", 4),
    ],
)
def test_killed_while_a_checkpoint_is_written(tokens, tmp_path, settings, where, count):
    settings = dataclasses.replace(settings, evaluations=1, workers=1, precision="fp32")
    process = child(tokens, tmp_path / "cut", settings, where, count)
    assert process.wait(timeout=120) == -signal.SIGKILL, process.communicate()[1]
    run(tokens, tmp_path / "cut", settings)
    run(tokens, tmp_path / "whole", settings)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    assert not list((tmp_path / "cut").rglob(".*"))


def test_the_result_is_a_folder_that_explains_itself(tokens, tmp_path, settings):
    settings = dataclasses.replace(settings, bigram_start=True)
    summary = run(tokens, tmp_path, settings)
    page = manifest.read(summary.model, "train")
    manifest.check(summary.model, page)
    assert page.inputs[0].stage == "tokenizer"
    assert page.counts["bits_per_character"] == round(summary.bits_per_character, 4)
    assert page.counts["tokens_seen"] == summary.tokens == 14 * 5 * 32
    assert hf.load(summary.model).config.vocab_size == 64
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in hf.load(summary.model).parameters())
    tables = recipe.read(tmp_path / "recipe.toml")
    assert (
        recipe.resolve(tables, {"model": ModelSettings, "train": type(settings)}, "train", type(settings)) == settings
    )
    assert 0 < summary.bits_per_character < math.log2(64) + 1


def test_without_evaluations_there_is_no_figure_and_the_folder_still_reads(tokens, tmp_path, settings):
    summary = run(tokens, tmp_path, dataclasses.replace(settings, steps=2, evaluations=0))
    assert math.isnan(summary.bits_per_character)
    assert manifest.read(summary.model, "train").counts["tokens_seen"] == summary.tokens


def test_other_settings_do_not_touch_a_run_unless_it_is_started_anew(tokens, tmp_path, settings):
    run(tokens, tmp_path, settings)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = dataclasses.replace(settings, seed=1)
    with pytest.raises(CheckpointError, match="other settings or other text"):
        run(tokens, tmp_path, other)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run(tokens, tmp_path, other, restart=True)
    assert before != {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_other_text_does_not_touch_a_run(tokens, tmp_path, settings):
    run(tokens, tmp_path / "run", settings)
    shutil.copytree(tokens, tmp_path / "other")
    manifest.write(tmp_path / "other", "tokenizer", counts={"documents": 1})
    run(tmp_path / "other", tmp_path / "run", settings)  # the same bytes, described anew
    (tmp_path / "other" / "recipe.toml").write_text("[tokenizer]\n")
    manifest.write(tmp_path / "other", "tokenizer")
    with pytest.raises(CheckpointError, match="other settings or other text"):
        run(tmp_path / "other", tmp_path / "run", settings)


def damaged(tokens, tmp_path, name, content):
    folder = shutil.copytree(tokens, tmp_path / "damaged")
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train/tokens-00000.bin", b"123", "has 3 bytes, expected"),
        ("train/shards.json", b"{}", "are damaged"),
        ("validation/characters.npy", b"", "are damaged"),
        ("manifest.json", b"{", "is damaged"),
        ("tokenizer.json", b"[]", "is not what was written"),
    ],
)
def test_damaged_shards_are_one_clear_error_and_leave_nothing(tokens, tmp_path, settings, name, content, message):
    with pytest.raises(DataError, match=message):
        run(damaged(tokens, tmp_path, name, content), tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_too_little_text_leaves_nothing(tokens, tmp_path, settings):
    with pytest.raises(DataError, match="too few for one sample of 100000"):
        run(tokens, tmp_path / "out", dataclasses.replace(settings, sequence_length=100_000))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_tokens_says_which_stage_writes_them(tmp_path, settings):
    with pytest.raises(DataError, match="yatsude tokenizer"):
        run(tmp_path, tmp_path / "out", settings)
    assert os.listdir(tmp_path) == []


def test_a_shard_altered_at_equal_size_is_not_trained_on(tokens, tmp_path, settings):
    content = (tokens / "train" / "tokens-00000.bin").read_bytes()
    with pytest.raises(DataError, match=r"tokens-00000\.bin is not what was written"):
        run(damaged(tokens, tmp_path, "train/tokens-00000.bin", content[::-1]), tmp_path / "out", settings)


def test_a_model_larger_than_the_machine_is_refused_before_anything_is_forgotten(
    tokens, tmp_path, settings, monkeypatch
):
    run(tokens, tmp_path / "run", settings)
    before = outcome(tmp_path / "run")
    monkeypatch.setattr("yatsude.train.build.memory", lambda: 100_000)
    with pytest.raises(MachineError, match=r"takes .* GB of memory, this machine has .*; choose a smaller"):
        run(tokens, tmp_path / "run", settings, restart=True)
    assert outcome(tmp_path / "run") == before
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_tied_tables_have_no_bigram_start():
    tied = resolve(ModelSettings(preset="pico", tie_word_embeddings=True), 512)
    free = resolve(ModelSettings(preset="pico"), 512)
    assert not has_bigram_start(tied, TrainSettings())
    assert has_bigram_start(free, TrainSettings())
    assert not has_bigram_start(free, TrainSettings(bigram_start=False))
