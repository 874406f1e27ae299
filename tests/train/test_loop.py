import dataclasses
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from yatsude.checkpoint import state
from yatsude.errors import CheckpointError, TrainingError
from yatsude.model.documents import Documents
from yatsude.model.loss import IGNORED
from yatsude.spec.stored import stored
from yatsude.train.feed import Batch
from yatsude.train.monitor import read_log

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class CutOffError(Exception):
    """Something from outside, in the middle of a step."""


class Broken:
    """A source that fails, or does something else first, at one step."""

    def __init__(self, source, at, act):
        self.source, self.at, self.act = source, at, act

    def batch(self, first, count):
        if first == self.at * count:
            self.act()
        return self.source.batch(first, count)


def fail():
    raise CutOffError


def log_of(folder):
    """All figures but the time they took."""
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "machine")} for line in read_log(folder / "log.jsonl")
    ]


def weights_of(source):
    return {name: source.read(name).clone() for name in stored(source.config)}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS)
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, loop_in, dtype, workers):
    """Cut off at several steps one after the other: between checkpoints, at one, and before the first."""
    whole = loop_in(tmp_path / "whole", dtype=dtype, workers=workers).run()
    for at in (2, 6, 8, 13):
        cut = loop_in(tmp_path / "cut", dtype=dtype, workers=workers)
        cut.source = Broken(cut.source, at, fail)
        with pytest.raises(CutOffError):
            cut.run()
    resumed = loop_in(tmp_path / "cut", dtype=dtype, workers=workers).run()
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    assert same(weights_of(resumed), weights_of(whole))
    assert state.latest(tmp_path / "cut" / "checkpoints")[1]["step"] == 14


def test_a_finished_run_gives_its_model_again(tmp_path, loop_in):
    first = loop_in(tmp_path)
    done = weights_of(first.run())
    again = loop_in(tmp_path)
    again.source = Broken(again.source, 0, fail)  # no sample is read
    assert same(weights_of(again.run()), done)
    assert again.score == first.score
    assert again.seconds == first.seconds


def test_the_log_tells_every_step_and_every_score(tmp_path, loop_in, settings):
    loop = loop_in(tmp_path)
    loop.run()
    lines = read_log(tmp_path / "log.jsonl")
    steps = [line for line in lines if "load" in line]
    scores = [line for line in lines if "bits_per_character" in line]
    assert [line["step"] for line in steps] == list(range(1, 15))
    assert [line["step"] for line in scores] == [5, 10, 14]
    assert scores[-1]["bits_per_character"] == loop.score.bits_per_character
    assert steps[-1]["tokens"] == 14 * settings.sequences_per_step * settings.sequence_length
    assert 0 < steps[-1]["rate_share"] < 0.04
    assert all(np.allclose(np.mean(line["load"], axis=1), 1, atol=1e-3) for line in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]


def batch_of(settings, counted=1.0):
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 64, (settings.sequences_per_step, settings.sequence_length + 1))
    targets = np.where(generator.random(tokens[:, 1:].shape) < counted, tokens[:, 1:], IGNORED)
    return Batch(tokens[:, :-1], targets, (tokens[:, :-1] == 0).cumsum(1))


def plain_gradient(model, batch):
    """Loss and gradients of the whole batch by autograd alone."""
    inputs, targets, documents = (torch.from_numpy(a) for a in (batch.inputs, batch.targets, batch.documents))
    logits = model.logits(model(inputs, mask=Documents(documents)))
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("counted", [1.0, 0.3])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_any_number_of_workers_gives_the_gradient_of_the_whole_batch(
    tmp_path, loop_in, build, settings, workers, counted
):
    """Seven workers for five sequences: two have nothing to do."""
    loop, batch = loop_in(tmp_path, workers=workers), batch_of(settings, counted)
    loss, expected = plain_gradient(build(), batch)
    assert loop.trainer.gradient(batch, 0) == pytest.approx(loss, rel=1e-5)
    loop.trainer.weights.collect(loop.trainer.weights.slices)
    for name, gradient in loop.trainer.weights.named(loop.trainer.weights.gradient).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=2e-6, msg=name)


def test_a_batch_without_a_counted_target_changes_nothing(tmp_path, loop_in, settings):
    loop = loop_in(tmp_path)
    assert loop.trainer.gradient(batch_of(settings, counted=0.0), 0) == 0
    assert loop.trainer.weights.collect(loop.trainer.weights.slices) == 0


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(tmp_path, loop_in):
    whole = weights_of(loop_in(tmp_path / "whole").run())
    loop = loop_in(tmp_path / "bad")
    loop.source = Broken(loop.source, 9, lambda: loop.trainer.weights.compute[:100].fill_(torch.nan))
    with pytest.raises(TrainingError, match=r"loss is nan at step 10; every checkpoint is from before it"):
        loop.run()
    assert state.latest(tmp_path / "bad" / "checkpoints")[1]["step"] == 8
    assert len(log_of(tmp_path / "bad")) == 9 + 1  # and one score
    assert same(weights_of(loop_in(tmp_path / "bad").run()), whole)


def test_a_diverging_loss_keeps_the_last_good_checkpoint(tmp_path, loop_in, settings):
    wild = dataclasses.replace(settings.optimizer, rate=3.0, embedding_rate=3.0, muon_rate=3.0, clip=1e9)
    settings = dataclasses.replace(settings, steps=300, evaluations=0, checkpoint_steps=5, warmup=0.9, optimizer=wild)
    with pytest.raises(TrainingError) as error:
        loop_in(tmp_path, settings).run()
    step = int(re.search(r"at step (\d+)", str(error.value))[1])
    good = state.latest(tmp_path / "checkpoints")
    assert good is not None
    tensors, page = good
    assert page["step"] < step
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    smooth, best, _ = page["guard"]
    assert smooth < best + 1


def test_another_identity_is_not_resumed(tmp_path, loop_in, settings):
    loop_in(tmp_path, dataclasses.replace(settings, steps=4)).run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="holds a run with other settings or other text; give another --run"):
        loop_in(tmp_path, identity="another").run()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_only_the_newest_checkpoints_are_kept(tmp_path, loop_in, settings):
    loop_in(tmp_path, dataclasses.replace(settings, checkpoint_steps=2, keep_checkpoints=3)).run()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000010", "step-00000012", "step-00000014"]


def test_a_checkpoint_holds_plain_figures(tmp_path, loop_in):
    loop_in(tmp_path).run()
    _, page = state.latest(tmp_path / "checkpoints")
    assert page["step"] == 14
    assert page["score"].keys() == {"bits", "characters", "tokens"}
