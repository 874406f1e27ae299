"""The whole stage on a pico model."""

import dataclasses
import math
import re

import pytest
import torch

from yatsude import manifest
from yatsude.checkpoint import hf, state
from yatsude.checkpoint.hf import InMemory
from yatsude.errors import CheckpointError, DataError
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.presets import preset
from yatsude.train.build import finish
from yatsude.train.monitor import read_log
from yatsude.tune.build import build, digest
from yatsude.tune.settings import TuneOptimizerSettings, TuneSettings

TRAIN = [(f"駅の前で、友だちを{n}人待ちます。", f"I wait for {n}.") for n in range(60)]
ASIDE = [(f"駅の前で、友だちを{n}人待ちます。", f"I wait for {n}.") for n in range(100, 110)]
SETTINGS = TuneSettings(
    steps=30,
    sequence_length=96,
    sequences_per_step=4,
    evaluations=3,
    checkpoint_steps=7,
    precision="fp32",
    workers=1,
    optimizer=TuneOptimizerSettings(rate=5e-3, embedding_rate=2e-2, muon_rate=1e-2),
)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Torch's threads wait for each other at every small product, which is slow on a busy machine."""
    monkeypatch.setattr("yatsude.train.build.cores", lambda: 1)


@pytest.fixture
def places(tmp_path, write_data, tokenizer):
    """A data folder and an untrained model, as the stages before leave them."""
    data = write_data(tmp_path / "data", TRAIN, ASIDE)
    tokens = tmp_path / "tokenizer"
    tokens.mkdir()
    tokenizer.save(tokens)
    manifest.write(tokens, "tokenizer", inputs=[data])
    model = Transformer(preset("pico", vocab_size=tokenizer.vocab_size))
    initialise(model, 0)
    finish(InMemory(model), tmp_path / "base", "train", [tokens], {}, "")
    return tmp_path / "base", data


def scores(folder):
    return [line["bits_per_character"] for line in read_log(folder / "log.jsonl") if "bits_per_character" in line]


def outcome(folder):
    log = [
        {k: v for k, v in line.items() if k not in ("seconds", "pause", "machine")}
        for line in read_log(folder / "log.jsonl")
    ]
    return log, (folder / "model" / "model.safetensors").read_bytes()


def test_answers_get_cheaper_and_the_folder_explains_itself(places, tmp_path):
    base, data = places
    summary = build(SETTINGS, base, data, tmp_path / "tune")
    first, *_, last = scores(tmp_path / "tune")
    assert last < 0.8 * first
    assert summary.bits_per_character == last
    page = manifest.read(summary.model, "tune")
    manifest.check(summary.model, page)
    assert [entry.stage for entry in page.inputs] == ["train", "data"]
    assert page.counts["answer_bits_per_character"] == round(last, 4)
    tuned, before = hf.load(summary.model, torch.float32), hf.load(base, torch.float32)
    assert not torch.equal(tuned.lm_head.weight, before.lm_head.weight)


class CutOffError(Exception):
    """Something from outside, in the middle of a run."""


def test_cut_off_and_resumed_equals_uninterrupted(places, tmp_path, monkeypatch):
    base, data = places
    from yatsude.tune.feed import ChatFeed

    real = ChatFeed.batch

    def broken(self, first, count):
        if first == 17 * count:
            raise CutOffError
        return real(self, first, count)

    with monkeypatch.context() as patch:
        patch.setattr(ChatFeed, "batch", broken)
        with pytest.raises(CutOffError):
            build(SETTINGS, base, data, tmp_path / "cut")
    assert state.latest(tmp_path / "cut" / "checkpoints")[1]["step"] == 14
    assert not (tmp_path / "cut" / "model").exists()
    build(SETTINGS, base, data, tmp_path / "cut")
    build(SETTINGS, base, data, tmp_path / "whole")
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_other_settings_are_refused_unless_started_anew(places, tmp_path):
    base, data = places
    short = dataclasses.replace(SETTINGS, steps=3, evaluations=1)
    build(short, base, data, tmp_path / "tune")
    with pytest.raises(CheckpointError, match="other settings or other text"):
        build(dataclasses.replace(short, seed=1), base, data, tmp_path / "tune")
    build(dataclasses.replace(short, seed=1), base, data, tmp_path / "tune", restart=True)


def own_talks(path, answer):
    lines = [
        f'{{"messages": [{{"role": "user", "content": "質問{n}"}}, {{"role": "assistant", "content": "{answer}"}}]}}'
        for n in range(9)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def test_a_few_own_conversations_are_enough_and_others_are_another_run(places, tmp_path):
    base, data = places
    path = tmp_path / "own.jsonl"
    own_talks(path, "はい。")
    settings = dataclasses.replace(SETTINGS, sources=(f"file:{path}",), steps=4, evaluations=1)
    summary, before = build(settings, base, data, tmp_path / "tune"), digest(settings)
    assert math.isfinite(summary.bits_per_character)
    page = manifest.read(summary.model, "tune")
    assert [entry.source for entry in page.licences] == ["file:own.jsonl"]
    assert page.recipe_sha256 == before
    own_talks(path, "いいえ。")
    assert digest(settings) != before
    with pytest.raises(CheckpointError, match="other settings or other text"):
        build(settings, base, data, tmp_path / "tune")


def test_conversations_too_long_for_a_row_are_counted_on_the_screen(places, tmp_path, capsys):
    base, data = places
    with pytest.raises(DataError, match=r"no conversation fits into 4 tokens \(\d+ are longer\); raise tune"):
        build(dataclasses.replace(SETTINGS, sequence_length=4), base, data, tmp_path / "tune")
    assert not (tmp_path / "tune").exists()
    path = tmp_path / "own.jsonl"
    own_talks(path, "はい。")
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n" + text.replace("はい。", "長い答え" * 30), encoding="utf-8")
    short = dataclasses.replace(SETTINGS, sources=(f"file:{path}",), sequence_length=96, steps=2, evaluations=1)
    build(short, base, data, tmp_path / "tune")
    found = re.search(r"left out: (\d+) conversations of more than 96 tokens", capsys.readouterr().err)
    assert found is not None
    assert int(found[1]) == 9  # for validation there is the shortest of the eighteen


def test_texts_without_a_manifest_are_refused_before_any_step(places, tmp_path):
    base, data = places
    (data / manifest.NAME).unlink()
    with pytest.raises(DataError, match=r"no manifest\.json in .*data"):
        build(SETTINGS, base, data, tmp_path / "tune")
    assert not (tmp_path / "tune").exists()


def test_a_folder_that_is_no_model_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json in"):
        build(SETTINGS, tmp_path, tmp_path, tmp_path / "tune")


def test_a_restart_that_cannot_begin_leaves_the_finished_model(places, tmp_path):
    build(SETTINGS, *places, tmp_path / "tune")
    before = outcome(tmp_path / "tune")
    bad = dataclasses.replace(SETTINGS, sources=(f"file:{tmp_path / 'none.jsonl'}",))
    with pytest.raises(DataError, match="no conversations at"):
        build(bad, *places, tmp_path / "tune", restart=True)
    assert outcome(tmp_path / "tune") == before
