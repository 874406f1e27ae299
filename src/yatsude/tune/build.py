"""From a trained model to one that answers: the stage `tune`. Its folder is laid out as that of `train`."""

import math
from pathlib import Path

import torch

from yatsude import manifest, recipe
from yatsude.checkpoint import hf
from yatsude.model.scoring import Score, nats_of
from yatsude.model.transformer import Transformer
from yatsude.progress import say
from yatsude.tokenizer.tokenizer import Tokenizer
from yatsude.train import precision
from yatsude.train.build import Summary, finish, forget, text_of, train_workers
from yatsude.train.identity import Identity
from yatsude.train.local import Local
from yatsude.train.loop import Loop
from yatsude.train.settings import WatchSettings
from yatsude.train.sinks import need
from yatsude.train.watch import Expected, Watch
from yatsude.tune.conversations import conversations, state
from yatsude.tune.feed import ChatFeed
from yatsude.tune.settings import TuneSettings

__all__ = ["STAGE", "build", "digest"]

STAGE = "tune"
EVALUATION_ROWS = 16


def build(
    settings: TuneSettings,
    model: Path,
    data: Path,
    folder: Path,
    restart: bool = False,
    watch: WatchSettings | None = None,
) -> Summary:
    """Tune the output of `yatsude train`; the same call goes on where an earlier one was stopped."""
    sinks = watch.sinks if watch else ()
    need(sinks)
    inputs = [model, data] if "pairs" in settings.sources else [model]
    for source in inputs:
        manifest.read(source)
    sections, page = {STAGE: settings}, digest(settings)  # a file that changes from here on makes the output old
    tokenizer = Tokenizer.load(model)
    feed = _feed(settings, tokenizer, data, "train", settings.conversations)
    validation = _feed(settings, tokenizer, data, "validation", settings.evaluation_documents)
    say(f"conversations: {len(feed.rows.inputs):,} rows of {settings.sequence_length} tokens")
    if feed.too_long:
        say(f"left out: {feed.too_long:,} conversations of more than {settings.sequence_length} tokens")
    base = hf.load(model, torch.float32)
    if restart:
        forget(folder)
    dtype, reason = precision.settled(folder, settings.precision)
    say(f"precision: {reason}")
    with train_workers(settings.workers, settings.sequences_per_step) as workers:
        loop = Loop(
            settings,
            Local(settings, base, dtype=dtype, workers=workers),
            feed,
            folder,
            evaluate=lambda replica: _score(replica, validation),
            identity=Identity.of(sections, {"text": text_of(model), "conversations": feed.digest()}),
        )
        del base  # its weights are in the loop's buffers now
        recipe.write(folder / "recipe.toml", sections)  # only now: a run with other settings would have been refused
        loop.watch = Watch(Expected(workers=workers.count), sinks)
        trained = loop.run()
    bits = loop.score.bits_per_character if loop.score else math.nan
    tokens = settings.steps * settings.sequences_per_step * settings.sequence_length
    figures = {
        "answer_bits_per_character": round(bits, 4),
        "tuning_tokens_seen": tokens,
        "seconds": round(loop.seconds, 1),
    }
    licences = [manifest.own_files(source) for source in settings.sources if source != "pairs"]
    finish(trained, folder / "model", STAGE, inputs, figures, page, licences)
    return Summary(model=folder / "model", bits_per_character=bits, tokens=tokens, seconds=loop.seconds)


def digest(settings: TuneSettings) -> str:
    """Name what the stage would write now: the settings, and the state of the user's own conversations."""
    return recipe.digest({STAGE: settings}, state(settings.sources))


def _feed(settings: TuneSettings, tokenizer: Tokenizer, data: Path, split: str, limit: int) -> ChatFeed:
    talks = conversations(settings.sources, data, split, limit)
    return ChatFeed(tokenizer, talks, settings.sequence_length, settings.seed)


@torch.no_grad()
def _score(model: Transformer, feed: ChatFeed) -> Score:
    """Bits a character of the validation answers."""
    nats, tokens = 0.0, 0
    for batch in feed.batches(EVALUATION_ROWS):
        more, counted = nats_of(model, batch.inputs, batch.targets, batch.documents)
        nats, tokens = nats + more, tokens + counted
    return Score(nats / math.log(2), feed.characters, tokens)
