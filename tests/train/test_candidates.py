import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from yatsude import shards
from yatsude.model.loss import IGNORED, cross_entropy
from yatsude.train.build import candidates_of
from yatsude.train.candidates import MULTIPLE, Candidates
from yatsude.train.settings import TrainSettings

VOCABULARY = 300


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Text in which token n comes about as often as 1 / n."""
    generator = np.random.default_rng(0)
    share = 1 / np.arange(1, VOCABULARY)
    documents = [generator.choice(np.arange(1, VOCABULARY), 50, p=share / share.sum()) for _ in range(200)]
    return shards.write(
        tmp_path_factory.mktemp("text"), ((ids, len(ids)) for ids in documents), vocab_size=VOCABULARY, separator=0
    )


@pytest.fixture
def targets():
    found = np.random.default_rng(1).choice(VOCABULARY, 12, p=_zipf())
    found[::5] = IGNORED
    return found


def _zipf():
    share = 1 / np.arange(1, VOCABULARY + 1)
    return share / share.sum()


def _true(drawn):
    """The candidates without their filling."""
    assert len(drawn.tokens_C) == len(drawn.offsets_C)
    return drawn.tokens_C[drawn.offsets_C > -math.inf]


def test_all_targets_are_there_each_once_and_about_as_many_others_as_asked_for(opened, targets):
    candidates = Candidates(opened, 60, 0)
    sizes = []
    for step in range(200):
        drawn = candidates.draw(step, targets)
        assert set(targets[targets != IGNORED]) <= set(drawn.tokens_C.tolist())
        assert len(drawn.tokens_C) % MULTIPLE == 0
        assert len(_true(drawn).unique()) == len(_true(drawn))
        places = drawn.places(torch.from_numpy(targets))
        counted = torch.from_numpy(targets) != IGNORED
        assert torch.equal(drawn.tokens_C[places[counted]], torch.from_numpy(targets)[counted])
        assert (places[~counted] == IGNORED).all()
        sizes.append(len(_true(drawn)))
    assert 60 <= np.mean(sizes) <= 60 + len(set(targets))


def test_the_same_step_draws_the_same_and_another_draws_others(opened, targets):
    one, same, other = (Candidates(opened, 60, 0).draw(step, targets).tokens_C.tolist() for step in (3, 3, 4))
    assert one == same != other
    assert Candidates(opened, 60, 1).draw(3, targets).tokens_C.tolist() != one


def test_the_candidates_stand_for_the_whole_vocabulary(opened):
    """Summed over draws, targets that follow the text's frequencies included, exp(score + offset) gives the total."""
    candidates = Candidates(opened, 60, 0)
    generator = np.random.default_rng(2)
    scores = generator.normal(size=VOCABULARY)
    found = []
    for step in range(3000):
        drawn = candidates.draw(step, generator.choice(VOCABULARY, 9, p=candidates.frequency_V))
        found.append(np.exp(scores[drawn.tokens_C] + drawn.offsets_C.double().numpy()).sum())
    total = np.exp(scores).sum()
    assert abs(np.mean(found) - total) < 4 * np.std(found) / math.sqrt(len(found)) < 0.05 * total


def test_frequent_tokens_are_always_there_and_not_corrected(opened):
    candidates = Candidates(opened, 60, 0)
    assert candidates.chance_V[1] == 1
    drawn = candidates.draw(0, np.array([5]))
    assert float(drawn.offsets_C[drawn.places_V[1]]) == 0
    assert float(drawn.offsets_C.max()) > 1


def test_with_all_tokens_drawn_the_loss_is_the_whole_one(opened, targets):
    drawn = Candidates(opened, VOCABULARY * 10_000, 0).draw(0, targets)
    assert len(_true(drawn)) == VOCABULARY
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(len(targets), 8, dtype=torch.float64, generator=generator)
    head = torch.randn(VOCABULARY, 8, dtype=torch.float64, generator=generator)
    goal = torch.from_numpy(targets)
    sampled = cross_entropy(hidden, head[drawn.tokens_C], drawn.places(goal), 1.0, drawn.offsets_C.double())
    torch.testing.assert_close(sampled, functional.cross_entropy(hidden @ head.T, goal, reduction="sum"))


def test_a_vocabulary_no_larger_than_the_sample_is_not_sampled(opened):
    assert candidates_of(TrainSettings(candidates=VOCABULARY), opened) is None
    assert candidates_of(TrainSettings(candidates=0), opened) is None
    assert candidates_of(TrainSettings(candidates=VOCABULARY - 1), opened) is not None
