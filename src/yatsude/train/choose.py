"""A model and a run for the minutes that there are, from this machine's measured speed."""

import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from yatsude.model.init import initialise
from yatsude.model.scoring import Score
from yatsude.model.transformer import Transformer
from yatsude.progress import bar
from yatsude.shards import Shards
from yatsude.spec.counts import count
from yatsude.spec.presets import LADDER
from yatsude.spec.settings import ModelSettings, resolve
from yatsude.train import bigram, precision
from yatsude.train.build import candidates_of, has_bigram_start, train_workers
from yatsude.train.feed import Feed
from yatsude.train.identity import Identity
from yatsude.train.local import Local
from yatsude.train.loop import Loop
from yatsude.train.settings import LoopSettings, TrainSettings

__all__ = ["Choice", "choose", "tokens_per_second", "tune_steps"]

Clock = Callable[[], float]
Measure = Callable[[ModelSettings, TrainSettings, Shards], float]

TUNE_SHARE = 0.2
"""Of the minutes: enough to learn the form of an answer, short enough to leave the language its time."""
TOKENS_PER_ACTIVE_PARAMETER = 0.8
"""With fewer tokens than this for each active parameter, the next smaller model is taken. In eight minutes a dense
model that saw 0.8 was 0.05 bits behind one that saw 1.7; a smaller model also answers faster."""
STEPS = 1000
"""Rather this many steps of fewer sequences than fewer steps of more: early on, steps count."""
WARMUP_SECONDS, SECONDS = 3.0, 4.0
"""Of a measurement: the first steps are slower, as products of new sizes are set up and memory is taken."""
MARGIN = 0.93
"""Share of the measured speed that is counted on: scores and checkpoints take time, and machines slow down."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and why, one sentence each."""

    model: ModelSettings
    train: TrainSettings
    reasons: tuple[str, ...]


def choose(
    minutes: float,
    tokens: Path,
    model: ModelSettings,
    train: TrainSettings,
    *,
    fixed: frozenset[str],
    measure: Measure | None = None,
    clock: Clock = time.perf_counter,
) -> Choice:
    """Choose preset, steps and batch for `minutes` of training and tuning together, of which tuning has its share.

    `fixed` names the keys that were set by hand (`preset`, `steps`, `sequences_per_step`): those stay. The minutes are
    those of `clock`.
    """
    measure = measure or functools.partial(tokens_per_second, clock=clock)
    shards = Shards(tokens / "train")
    seconds = 60 * minutes * (1 - TUNE_SHARE) * MARGIN
    reasons: list[str] = []
    if "preset" not in fixed:
        model, speed = _preset(model, train, shards, seconds, measure, reasons)
    else:
        speed = measure(model, train, shards)
        reasons.append(f"model {model.preset}, as set by hand: {speed:,.0f} tokens/s")
    if "steps" not in fixed:
        left = max(seconds - _start_seconds(model, train, shards, clock, reasons), seconds / 4)
        sequences = train.sequences_per_step
        if "sequences_per_step" not in fixed:
            sequences = _sequences(train, speed * left)
        if sequences > train.sequences_per_step:
            train = dataclasses.replace(train, sequences_per_step=sequences)
            speed = measure(model, train, shards)
            reasons.append(f"{sequences} sequences a step: {speed:,.0f} tokens/s")
        train = _steps(train, speed * left, reasons)
    return Choice(model=model, train=train, reasons=tuple(reasons))


def tune_steps(
    minutes: float,
    tokens: Path,
    model: ModelSettings,
    train: TrainSettings,
    tune: LoopSettings,
    *,
    measure: Measure | None = None,
) -> tuple[int, str]:
    """Steps of tuning in its share of `minutes`, and why.

    Measured as tuning is done, over the whole vocabulary, but on samples of training's length: those the text has.
    """
    names = ("sequences_per_step", "precision", "workers")
    alike = dataclasses.replace(train, candidates=0, **{name: getattr(tune, name) for name in names})
    speed = (measure or tokens_per_second)(model, alike, Shards(tokens / "train"))
    batch = tune.sequences_per_step * tune.sequence_length
    steps = max(20, int(speed * 60 * minutes * TUNE_SHARE * MARGIN / batch))
    return steps, f"{steps:,} steps of tuning at {speed:,.0f} tokens/s: {TUNE_SHARE:.0%} of the {minutes:g} minutes"


def tokens_per_second(
    model: ModelSettings, train: TrainSettings, shards: Shards, clock: Clock = time.perf_counter
) -> float:
    """Train for a few seconds and throw the result away; tokens a second of the median step, by `clock`."""
    fresh = Transformer(resolve(model, shards.vocab_size))
    initialise(fresh, train.seed)
    tokens = train.sequences_per_step * train.sequence_length
    with (
        tempfile.TemporaryDirectory() as folder,
        train_workers(train.workers, train.sequences_per_step) as workers,
        bar(f"measuring {model.preset}", unit="tokens") as moving,
    ):
        settings, dtype = dataclasses.replace(train, steps=1_000_000), precision.choose(train.precision)[0]
        loop = Loop(
            settings,
            Local(settings, fresh, dtype=dtype, workers=workers, candidates=candidates_of(train, shards)),
            Feed(shards, train.sequence_length, train.seed),
            Path(folder),
            evaluate=lambda _model: Score(0.0, 1, 1),
            identity=Identity("speed"),
        )
        warm = clock() + WARMUP_SECONDS
        loop.advance()
        while clock() < warm:
            loop.advance()
        seconds: list[float] = []
        while sum(seconds) < SECONDS:
            start = clock()
            loop.advance()
            seconds.append(clock() - start)
            moving.advance(tokens)
    return tokens / statistics.median(seconds)


def _preset(
    model: ModelSettings,
    train: TrainSettings,
    shards: Shards,
    seconds: float,
    measure: Measure,
    reasons: list[str],
) -> tuple[ModelSettings, float]:
    """Climb the ladder as long as the next model still sees enough text in the time."""
    best: tuple[ModelSettings, float] | None = None
    for name in LADDER:
        candidate = dataclasses.replace(model, preset=name)
        speed = measure(candidate, train, shards)
        active = count(resolve(candidate, shards.vocab_size)).active
        ratio = speed * seconds / active
        says = f"{name}: {speed:,.0f} tokens/s, {ratio:.2g} tokens an active parameter in {seconds:.0f} s"
        if best is not None and ratio < TOKENS_PER_ACTIVE_PARAMETER:
            reasons.append(f"not {says}, fewer than {TOKENS_PER_ACTIVE_PARAMETER:g}")
            break
        reasons.append(f"model {says}")
        best = candidate, speed
    if best is None:
        raise AssertionError("the ladder of presets is empty")
    return best


def _start_seconds(
    model: ModelSettings, train: TrainSettings, shards: Shards, clock: Clock, reasons: list[str]
) -> float:
    config = resolve(model, shards.vocab_size)
    if not has_bigram_start(config, train):
        return 0.0
    shape = config.vocab_size, config.hidden_size
    with train_workers(train.workers, train.sequences_per_step) as workers:
        spent = bigram.seconds(shape, precision.choose(train.precision)[0], workers, clock)
    reasons.append(f"{spent:.0f} s of the time for the bigram start")
    return spent


def _sequences(train: TrainSettings, tokens: float) -> int:
    """Sequences a step: more where there would be more than enough steps, as many for each worker."""
    workers = train.workers or torch.get_num_threads()
    wanted = tokens / (STEPS * train.sequence_length)
    return max(train.sequences_per_step, workers * int(wanted // workers))


def _steps(train: TrainSettings, tokens: float, reasons: list[str]) -> TrainSettings:
    """As many steps as the tokens give."""
    sequences = train.sequences_per_step
    steps = max(20, int(tokens / (sequences * train.sequence_length)))
    reasons.append(f"{steps:,} steps of {sequences} sequences: {steps * sequences * train.sequence_length:,} tokens")
    return dataclasses.replace(train, steps=steps)
