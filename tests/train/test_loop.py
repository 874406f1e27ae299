import dataclasses
import errno
import os
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from yatsude.checkpoint import state, tensors
from yatsude.errors import CheckpointError, MachineError, RecipeError, TrainingError
from yatsude.model.documents import Documents
from yatsude.model.loss import IGNORED
from yatsude.model.scoring import Score
from yatsude.spec.stored import stored
from yatsude.train.feed import Batch
from yatsude.train.identity import Identity
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
        {k: v for k, v in line.items() if k not in ("seconds", "pause", "machine")}
        for line in read_log(folder / "log.jsonl")
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
    with pytest.raises(
        TrainingError, match=r"loss is nan at step 10, first in weight embed_tokens\.weight; every checkpoint"
    ):
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
    smooth, best, *_ = page["guard"]
    assert smooth < best + 1


def test_another_identity_is_not_resumed(tmp_path, loop_in, settings):
    loop_in(tmp_path, dataclasses.replace(settings, steps=4)).run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="holds a run with other settings or other text; give another --run"):
        loop_in(tmp_path, identity=Identity("another")).run()
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


class Spiking:
    """Batches, by their number, whose loss is told 5 nats higher than it is."""

    def __init__(self, loop, *batches):
        self.loop, self.batches, self.seen = loop, batches, []
        self.gradient, loop.trainer.gradient, self.source, loop.source = loop.trainer.gradient, self, loop.source, self

    def batch(self, first, count):
        self.seen.append(first // count)
        return self.source.batch(first, count)

    def __call__(self, batch, step):
        return self.gradient(batch, step) + (5.0 if self.seen[-1] in self.batches else 0.0)


def spiky(settings, **more):
    return dataclasses.replace(settings, steps=75, checkpoint_steps=20, evaluations=0, spikes=2, **more)


def test_a_spike_goes_back_and_leaves_out_what_led_to_it(tmp_path, loop_in, settings):
    loop = loop_in(tmp_path / "a", spiky(settings))
    spiking = Spiking(loop, 65)
    final = weights_of(loop.run())
    assert spiking.seen == [*range(66), *range(66, 66 + 35)]  # the state of step 60 is too near
    lines = read_log(tmp_path / "a" / "log.jsonl")
    assert [line["step"] for line in lines if "load" in line] == list(range(1, 76))
    (skipped,) = [line for line in lines if "skipped" in line]
    assert skipped["skipped"] == [40 * 5, 66 * 5 - 1]
    assert skipped["step"] == 40
    assert re.match(r"loss spikes: \d\.\d\d at step 66, \d\.\d\d ± \d\.\d\d in the steps before", skipped["why"])
    for at in (30, 70):  # cut off before the spike, and after it
        cut = loop_in(tmp_path / "b", spiky(settings))
        Spiking(cut, 65)
        cut.source = Broken(cut.source, at, fail)
        with pytest.raises(CutOffError):
            cut.run()
    other = loop_in(tmp_path / "b", spiky(settings))
    assert [skip.last for skip in other.skips.records] == [65]
    assert same(weights_of(other.run()), final)


def test_a_run_that_goes_wrong_too_often_ends(tmp_path, loop_in, settings):
    loop = loop_in(tmp_path, spiky(settings))
    Spiking(loop, 65, 80, 95)
    with pytest.raises(TrainingError, match=r"loss spikes: .* \(and train\.spikes = 2 are used up\)"):
        loop.run()
    again = loop_in(tmp_path, dataclasses.replace(spiky(settings), spikes=3))
    Spiking(again, 95)
    again.run()
    assert [(skip.first, skip.last) for skip in again.skips.records] == [(40, 65), (66, 80), (81, 95)]


def test_a_batch_that_is_no_number_is_left_out_without_a_trace(tmp_path, loop_in, settings):
    """The weights are those of a run over the same text without it."""
    settings = dataclasses.replace(settings, spikes=1)
    loop = loop_in(tmp_path / "a", settings)
    gradient, source = loop.trainer.gradient, loop.source

    def bad(batch, step):
        loss = gradient(batch, step)
        if not loop.skips.records and step == 9:
            loop.trainer.weights._gradients[:, 5] = torch.nan
        return loss

    loop.trainer.gradient = bad
    trained = weights_of(loop.run())
    other = loop_in(tmp_path / "b", settings)
    other.source = Without(source, 9)
    assert same(weights_of(other.run()), trained)


class Without:
    def __init__(self, source, number):
        self.source, self.number = source, number

    def batch(self, first, count):
        return self.source.batch(first + (count if first // count >= self.number else 0), count)


def test_a_full_disk_costs_a_state_and_not_the_run(tmp_path, loop_in, monkeypatch, capsys):
    whole = weights_of(loop_in(tmp_path / "whole").run())
    real, failures = tensors.stream, iter([False, True])

    def full(path, content):
        if next(failures, False):
            raise no_space(path)
        return real(path, content)

    monkeypatch.setattr(state, "stream", full)
    loop = loop_in(tmp_path / "full")
    assert same(weights_of(loop.run()), whole)
    assert re.search(r"step-00000008 is not written \(disk full while writing .*\); the state before", told(capsys))
    assert sorted(path.name for path in loop.checkpoints.iterdir()) == ["step-00000012", "step-00000014"]


def no_space(path):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def told(capsys):
    return capsys.readouterr().err


def test_a_disk_that_is_full_at_the_end_is_an_error(tmp_path, loop_in, monkeypatch):
    def full(path, content):
        raise no_space(path)

    monkeypatch.setattr(state, "stream", full)
    with pytest.raises(MachineError, match="the last state is not written: disk full while writing"):
        loop_in(tmp_path).run()


def test_the_best_state_stays_and_is_written_when_it_is_scored(tmp_path, loop_in, settings):
    settings = dataclasses.replace(settings, keep_checkpoints=1, keep_best=True, checkpoint_steps=50)
    scores = iter([3.0, 2.0, 2.5])
    loop = loop_in(tmp_path, settings)
    loop.evaluate = lambda _: Score(next(scores), 1, 1)
    loop.run()
    assert sorted(path.name for path in loop.checkpoints.iterdir()) == ["step-00000010", "step-00000014"]


def test_a_state_of_another_model_is_refused(tmp_path, loop_in, build):
    loop_in(tmp_path).run()
    with pytest.raises(CheckpointError, match=r"another model: it has no layers\.2\.\S+, expected shape \(32,\); give"):
        loop_in(tmp_path, model=build(num_hidden_layers=3))


def test_a_state_beyond_the_last_step_is_no_result(tmp_path, loop_in, settings):
    loop_in(tmp_path).run()
    fewer = dataclasses.replace(settings, steps=6)
    with pytest.raises(CheckpointError, match=r"is at step 14, and train\.steps = 6: that is over; give more steps"):
        loop_in(tmp_path, fewer)


def test_a_best_state_needs_scores(settings):
    with pytest.raises(RecipeError, match=r"train\.keep_best = true: nothing is scored with evaluations = 0"):
        dataclasses.replace(settings, keep_best=True, evaluations=0)
