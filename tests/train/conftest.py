import functools
import json

import numpy as np
import pytest
import torch

from yatsude import manifest, shards
from yatsude.model.init import initialise
from yatsude.model.scoring import score
from yatsude.model.transformer import Transformer
from yatsude.spec.presets import preset
from yatsude.train.feed import Feed
from yatsude.train.identity import Identity
from yatsude.train.local import Local
from yatsude.train.loop import Loop
from yatsude.train.settings import TrainSettings
from yatsude.train.workers import Workers

VOCABULARY = 64
SAME = Identity("same")
SETTINGS = TrainSettings(
    steps=14,
    sequence_length=32,
    sequences_per_step=5,
    evaluations=3,
    evaluation_documents=6,
    checkpoint_steps=4,
    bigram_start=False,
    candidates=24,
)


def make_documents(count=150, seed=0):
    """A chain in which four tokens can follow each."""
    generator = np.random.default_rng(seed)
    follow = np.random.default_rng(1).integers(1, VOCABULARY, (VOCABULARY, 4))
    for _ in range(count):
        ids = [int(generator.integers(1, VOCABULARY))]
        for _ in range(int(generator.integers(2, 40))):
            ids.append(int(follow[ids[-1], generator.integers(4)]))
        yield ids, len(ids)


def make_model(**changes):
    """A small model in which every weight matters from the first step."""
    model = Transformer(preset("pico", vocab_size=VOCABULARY, **changes))
    initialise(model, 0)
    if not model.config.tie_word_embeddings:
        torch.nn.init.normal_(model.lm_head.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return model


@pytest.fixture(scope="session")
def tokens(tmp_path_factory):
    """A folder as `yatsude tokenizer` leaves it."""
    folder = tmp_path_factory.mktemp("tokens")
    for name, seed in (("train", 0), ("validation", 9)):
        shards.write(folder / name, make_documents(seed=seed), vocab_size=VOCABULARY, separator=0, shard_tokens=1500)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_text(json.dumps({}))
    manifest.write(folder, "tokenizer")
    return folder


@pytest.fixture
def settings():
    return SETTINGS


@pytest.fixture
def build():
    return make_model


@pytest.fixture
def loop_in(tokens):
    """Start or resume a small run in a folder."""

    def make(
        folder, settings=SETTINGS, *, dtype=torch.float32, workers=1, model=None, source=None, identity=SAME, allow=()
    ):
        train, validation = shards.Shards(tokens / "train"), shards.Shards(tokens / "validation")
        return Loop(
            settings,
            Local(settings, model or make_model(), dtype=dtype, workers=Workers(workers)),
            source or Feed(train, settings.sequence_length, settings.seed),
            folder,
            evaluate=functools.partial(score, shards=validation, window=settings.sequence_length, documents=6),
            identity=identity,
            allow=allow,
        )

    return make
