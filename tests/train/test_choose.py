"""The choice of model and run, with made-up speeds instead of measured ones."""

import dataclasses

import numpy as np
import pytest

from yatsude import shards
from yatsude.spec.counts import count
from yatsude.spec.presets import LADDER
from yatsude.spec.settings import ModelSettings, resolve
from yatsude.train import choose as room
from yatsude.train.choose import choose, tune_steps
from yatsude.train.settings import LoopSettings, TrainSettings

NOTHING = frozenset()
ARITHMETIC = 3e10
"""Parameters times tokens a second: about a machine of two cores."""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    ids = np.random.default_rng(0).integers(1, 8192, (40, 300))
    shards.write(folder / "train", ((row, 300) for row in ids), vocab_size=8192, separator=0)
    return folder


@pytest.fixture
def pick(tokens):
    """Choose for some minutes on a machine whose speed falls with the active parameters."""
    asked = []

    def speed(model, train, text):
        asked.append(model.preset)
        return ARITHMETIC / count(resolve(model, text.vocab_size)).active

    def run(minutes, *, fixed=NOTHING, model=None, train=None):
        asked.clear()
        return choose(
            minutes,
            tokens,
            model or ModelSettings(),
            train or TrainSettings(workers=2, bigram_start=False),
            fixed=fixed,
            measure=speed,
        )

    run.asked, run.speed = asked, speed
    return run


def test_more_minutes_never_choose_a_smaller_model(pick):
    minutes = (0.1, 1, 3, 10, 30, 100, 1000, 10_000)
    rungs = [LADDER.index(pick(m).model.preset) for m in minutes]
    assert rungs == sorted(rungs)
    assert rungs[0] == 0
    assert rungs[-1] >= 3


def test_only_as_much_of_the_ladder_is_measured_as_is_needed(pick):
    chosen = LADDER.index(pick(10).model.preset)
    assert pick.asked == [*LADDER[: chosen + 2], LADDER[chosen]]  # the last one with the sequences it will have


@pytest.mark.parametrize("minutes", [0.5, 2, 10, 60, 600])
def test_steps_times_tokens_fit_the_time(pick, tokens, minutes):
    choice, tune = pick(minutes), LoopSettings()
    active = count(resolve(choice.model, 8192)).active
    speed = ARITHMETIC / active
    batch = choice.train.sequences_per_step * choice.train.sequence_length
    seconds = choice.train.steps * batch / speed
    steps, _ = tune_steps(minutes, tokens, choice.model, choice.train, tune, measure=pick.speed)
    tuning = steps * tune.sequences_per_step * tune.sequence_length / speed
    assert 0.85 * 60 * minutes <= seconds + tuning <= 60 * minutes
    assert tuning == pytest.approx(room.TUNE_SHARE * (seconds + tuning), rel=0.1)


def test_a_long_run_takes_larger_steps_not_only_more(pick):
    short, long = pick(1).train, pick(1000).train
    assert short.sequences_per_step == TrainSettings().sequences_per_step
    assert long.sequences_per_step > short.sequences_per_step
    assert long.sequences_per_step % 2 == 0  # workers
    assert long.steps >= room.STEPS


def test_larger_steps_are_counted_at_their_own_speed(tokens):
    settings = TrainSettings(workers=2, bigram_start=False)
    speeds = {settings.sequences_per_step: 10_000.0}
    choice = choose(
        10,
        tokens,
        ModelSettings(preset="nano"),
        settings,
        fixed=frozenset({"preset"}),
        measure=lambda model, train, text: speeds.get(train.sequences_per_step, 12_500.0),
    )
    assert choice.train.sequences_per_step > settings.sequences_per_step
    batch = choice.train.sequences_per_step * settings.sequence_length
    expected = 12_500 * 600 * (1 - room.TUNE_SHARE) * room.MARGIN
    assert choice.train.steps * batch == pytest.approx(expected, rel=0.01)


def test_a_very_short_time_still_trains(pick, tokens):
    choice = pick(0.001)
    assert choice.train.steps == 20
    assert tune_steps(0.001, tokens, choice.model, choice.train, LoopSettings(), measure=pick.speed)[0] == 20


def test_tuning_is_measured_as_it_will_run_on_samples_that_the_text_has(tokens):
    measured = []

    def speed(_model, train, _text):
        measured.append((train.candidates, train.sequence_length, train.sequences_per_step))
        return 1000.0

    train, tune = TrainSettings(sequence_length=128), LoopSettings(sequence_length=512, sequences_per_step=4)
    steps, reason = tune_steps(10, tokens, ModelSettings(), train, tune, measure=speed)
    assert measured == [(0, 128, 4)]  # the text may be too short for one sample of tuning's length
    assert 0.9 * 120 <= steps * 4 * 512 / 1000.0 <= 120
    assert f"{steps:,} steps of tuning at 1,000 tokens/s" in reason


def test_a_preset_set_by_hand_stays(pick):
    choice = pick(1, fixed=frozenset({"preset"}), model=ModelSettings(preset="small"))
    assert choice.model.preset == "small"
    assert pick.asked == ["small"]
    assert "model small, as set by hand" in choice.reasons[0]


def test_steps_and_batch_set_by_hand_stay(pick):
    train = TrainSettings(steps=77, sequences_per_step=6, workers=2, bigram_start=False)
    assert pick(10, fixed=frozenset({"steps", "sequences_per_step"}), train=train).train == train
    kept = pick(1000, fixed=frozenset({"sequences_per_step"}), train=train).train
    assert kept.sequences_per_step == 6
    assert kept.steps > 77


def test_everything_else_is_as_the_recipe_says(pick):
    model = ModelSettings(rope_theta=5000.0)
    train = TrainSettings(sequence_length=64, seed=9, workers=2, bigram_start=False)
    choice = pick(10, model=model, train=train)
    assert dataclasses.replace(choice.model, preset=model.preset) == model
    chosen = {"steps": train.steps, "sequences_per_step": train.sequences_per_step}
    assert dataclasses.replace(choice.train, **chosen) == train


def test_every_choice_says_why_in_numbers(pick):
    choice = pick(10)
    assert len(choice.reasons) >= 3
    assert all(any(letter.isdigit() for letter in reason) and "\n" not in reason for reason in choice.reasons)
    said = "\n".join(choice.reasons)
    assert f"model {choice.model.preset}: " in said
    assert f"{choice.train.steps:,} steps of {choice.train.sequences_per_step} sequences" in said
    assert "not " in said  # the next larger one, and why not


def test_speed_is_measured_on_the_text_and_leaves_nothing(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SECONDS", 0.2)
    monkeypatch.setattr(room, "WARMUP_SECONDS", 0.1)
    monkeypatch.setattr("yatsude.train.build.cores", lambda: 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    train = TrainSettings(sequence_length=32, sequences_per_step=2, workers=1, bigram_start=False, precision="fp32")
    text = shards.Shards(tokens / "train")
    assert room.tokens_per_second(ModelSettings(preset="pico"), train, text) > 10
    assert list(tmp_path.iterdir()) == []
