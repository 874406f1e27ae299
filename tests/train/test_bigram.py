import collections
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude import shards
from yatsude.shards import Shards
from yatsude.train import bigram
from yatsude.train.workers import Workers

DOCUMENTS = st.lists(st.lists(st.integers(1, 6), max_size=9), min_size=1, max_size=9)


def dictionary(opened):
    return collections.Counter(
        pair for stream in opened.streams() for pair in zip(stream[:-1].tolist(), stream[1:].tolist(), strict=True)
    )


@settings(deadline=None)
@given(DOCUMENTS, st.integers(1, 20), st.lists(st.integers(0, 6), unique=True))
def test_pairs_are_those_of_a_dictionary(tmp_path_factory, documents, shard_tokens, contexts):
    folder = tmp_path_factory.mktemp("pairs")
    sized = [(ids, len(ids)) for ids in documents]
    opened = shards.write(folder, sized, vocab_size=7, separator=0, shard_tokens=shard_tokens)
    pairs = bigram.count_pairs([(opened, 1.0)])
    expected = dictionary(opened)
    assert pairs.counts_P.sum() == expected.total()
    rows, following, counts = pairs.of(np.array(contexts, np.int64))
    got = {(contexts[r], f): c for r, f, c in zip(rows.tolist(), following.tolist(), counts.tolist(), strict=True)}
    assert got == {pair: count for pair, count in expected.items() if pair[0] in contexts}
    assert len(got) == len(rows)


def entropy_of(opened):
    """Nats a token that the counts themselves cost: no bigram model does better on this text."""
    pairs, contexts = dictionary(opened), collections.Counter()
    for (context, _), count in pairs.items():
        contexts[context] += count
    return -sum(n * math.log(n / contexts[c]) for (c, _), n in pairs.items()) / pairs.total()


def nats_of(model, opened):
    """Cross-entropy of all neighbours, each context seen alone."""
    total = 0.0
    with torch.no_grad():
        scores = torch.log_softmax(model.logits(model(torch.arange(opened.vocab_size)[:, None]))[:, 0], -1)
    counted = dictionary(opened)
    for (context, token), count in counted.items():
        total -= count * float(scores[context, token])
    return total / counted.total()


@pytest.fixture
def opened(tokens):
    return Shards(tokens / "train")


@pytest.fixture
def workers():
    with Workers(2) as two:
        yield two


def test_the_fit_approaches_what_the_counts_allow(opened, build, workers):
    model = build()
    bigram.start(model, [(opened, 1.0)], 0, torch.bfloat16, workers)
    least = entropy_of(opened)
    assert least < nats_of(model, opened) < least + 0.25 < math.log(64) - 1.5


def test_the_layers_start_silent_and_the_embedding_has_unit_size(opened, build, workers):
    model = build()
    bigram.start(model, [(opened, 1.0)], 0, torch.bfloat16, workers)
    ids = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = model.norm(model.embed_tokens(ids))
        assert torch.equal(model(ids), alone)
    size = model.embed_tokens.weight.detach().square().mean(-1).sqrt()
    torch.testing.assert_close(size, torch.ones(64), rtol=1e-4, atol=0)


def test_the_same_seed_fits_the_same(opened, workers):
    pairs = bigram.count_pairs([(opened, 1.0)])
    settings = {"eps": 1e-6, "dtype": torch.bfloat16, "workers": workers}
    one, other, third = (bigram.fit(pairs, (64, 16), seed, **settings) for seed in (0, 0, 1))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], third[0])
