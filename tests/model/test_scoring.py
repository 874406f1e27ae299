import collections
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude import shards
from yatsude.model import scoring
from yatsude.model.loss import IGNORED
from yatsude.model.scoring import score

WINDOW = 16


def write(folder, lengths, seed=0):
    generator = np.random.default_rng(seed)
    documents = [(generator.integers(1, 256, length), 2 * length + 1) for length in lengths]
    return shards.write(folder, documents, vocab_size=256, separator=0, shard_tokens=200)


@torch.no_grad()
def bits(model, inputs, targets):
    """Cost of `targets`, the last tokens after `inputs`, in a sequence of their own."""
    scores = torch.log_softmax(model.logits(model(torch.from_numpy(inputs)[None]))[0].double(), -1)
    picked = scores[-len(targets) :].gather(1, torch.from_numpy(targets)[:, None])
    return -float(picked.sum()) / math.log(2)


def naive(model, opened):
    """One document at a time, and one window of it at a time: no packing, no mask."""
    total = 0.0
    for document in opened.documents():
        done = 0
        for start in range(0, len(document), WINDOW // 2):
            end = min(start + WINDOW, len(document) - 1)
            if end > done:
                total += bits(model, document[start:end], document[done + 1 : end + 1])
                done = end
    return total


@pytest.mark.parametrize(
    "lengths",
    [
        [3, 1, 0, 7, 15, 2, 2, 9, 1, 1, 1, 11],
        [WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1],
        [40, 5, 100, 17, 24, 23, 25, 33],
        [6] * 90,
    ],
    ids=["short", "as long as the window", "long", "more rows than a batch"],
)
def test_bits_equal_one_document_at_a_time(tmp_path, build, lengths):
    model, opened = build(), write(tmp_path, lengths)
    result = score(model, opened, WINDOW)
    assert result.bits == pytest.approx(naive(model, opened), rel=1e-6)
    assert result.tokens == sum(length + 1 for length in lengths)  # each, and the end of its document
    assert result.characters == sum(2 * length + 1 for length in lengths)
    assert result.bits_per_character == result.bits / result.characters


def test_the_first_documents_are_scored_as_they_are_in_all(tmp_path, build):
    model, opened = build(), write(tmp_path / "all", [5, 30, 9, 12])
    first = write(tmp_path / "first", [5, 30])
    assert score(model, opened, WINDOW, documents=2).bits == pytest.approx(score(model, first, WINDOW).bits, rel=1e-6)
    assert score(model, opened, WINDOW, documents=9) == score(model, opened, WINDOW)


def test_no_text_costs_nothing(tmp_path, build):
    empty = score(build(), write(tmp_path, [5]), WINDOW, documents=0)
    assert (empty.bits, empty.characters, empty.tokens, empty.bits_per_character) == (0, 0, 0, 0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(2, 24))
def test_every_token_is_counted_exactly_once_and_sees_enough(lengths, window):
    """Tokens are numbered, so that what a batch holds can be read back."""
    numbered = np.arange(1, sum(lengths) + len(lengths) + 1)
    documents = np.split(numbered, np.cumsum([length + 1 for length in lengths])[:-1])
    pieces = (piece for document in documents for piece in scoring._pieces(document, window))
    counted = collections.Counter()
    for inputs, targets, numbers in scoring._batches(pieces, window):
        assert inputs.shape == targets.shape == numbers.shape
        assert inputs.shape[0] <= scoring.ROWS
        assert inputs.shape[1] == window
        for row, place in np.argwhere(targets != IGNORED):
            assert targets[row, place] == inputs[row, place] + 1
            counted[int(targets[row, place])] += 1
            seen = inputs[row, : place + 1][numbers[row, : place + 1] == numbers[row, place]]
            document = next(d for d in documents if targets[row, place] in d)
            assert seen.tolist() == document[document <= inputs[row, place]][-len(seen) :].tolist()
            assert len(seen) >= min(window // 2, int(targets[row, place] - document[0]))
    assert counted == {int(number): 1 for document in documents for number in document[1:]}
