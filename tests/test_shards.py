import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude import shards
from yatsude.errors import DataError
from yatsude.shards import Shards

VOCABULARY = st.sampled_from([300, 1 << 16, (1 << 16) + 1, 200_000])
DOCUMENTS = st.lists(st.lists(st.integers(1, 299), max_size=12), min_size=1, max_size=12)


def write(folder, documents, vocab_size=300, shard_tokens=1 << 20):
    sized = [(ids, 2 * len(ids)) for ids in documents]
    return shards.write(folder, sized, vocab_size=vocab_size, separator=0, shard_tokens=shard_tokens)


@settings(deadline=None)
@given(DOCUMENTS, VOCABULARY, st.integers(1, 30))
def test_documents_come_back_in_order(tmp_path_factory, documents, vocab_size, shard_tokens):
    folder = tmp_path_factory.mktemp("shards")
    written = write(folder, documents, vocab_size, shard_tokens)
    for opened in (written, Shards(folder)):
        assert [d.tolist() for d in opened.documents()] == [[0, *ids, 0] for ids in documents]
        assert opened.characters.tolist() == [2 * len(ids) for ids in documents]
        assert opened.vocab_size == vocab_size
        assert opened.tokens == sum(len(ids) + 1 for ids in documents) + len(opened.counts)


@settings(deadline=None)
@given(DOCUMENTS, st.integers(1, 30), st.integers(1, 9))
def test_samples_are_the_stream_cut_evenly(tmp_path_factory, documents, shard_tokens, length):
    opened = write(tmp_path_factory.mktemp("shards"), documents, shard_tokens=shard_tokens)
    expected = [
        stream[start : start + length + 1].tolist()
        for stream in opened.streams()
        for start in range(0, len(stream) - length, length)
    ]
    assert [opened.sample(i, length).tolist() for i in range(opened.samples(length))] == expected
    assert all(sample.dtype == np.int64 for sample in (opened.sample(i, length) for i in range(len(expected))))
    with pytest.raises(IndexError):
        opened.sample(len(expected), length)


def test_a_document_stays_in_one_shard(tmp_path):
    opened = write(tmp_path, [[1, 2, 3], [4, 5, 6, 7, 8, 9], [1]], shard_tokens=5)
    assert [stream.tolist() for stream in opened.streams()] == [[0, 1, 2, 3, 0], [0, 4, 5, 6, 7, 8, 9, 0], [0, 1, 0]]


@pytest.mark.parametrize(("vocab_size", "width"), [(1 << 16, 2), ((1 << 16) + 1, 4)])
def test_the_width_on_disk_follows_the_vocabulary(tmp_path, vocab_size, width):
    opened = write(tmp_path, [[vocab_size - 1]], vocab_size)
    assert (tmp_path / "tokens-00000.bin").stat().st_size == 3 * width
    assert opened.sample(0, 2).tolist() == [0, vocab_size - 1, 0]


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="token id 300 does not fit a vocabulary of 300"):
        write(tmp_path, [[300]])
    with pytest.raises(DataError, match="no documents to write"):
        write(tmp_path, [])


def damage_page(folder, **changes):
    page = json.loads((folder / "shards.json").read_text())
    (folder / "shards.json").write_text(json.dumps({**page, **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "tokens-00000.bin").unlink(), r"tokens-00000\.bin has 0 bytes, expected 10"),
        (lambda f: (f / "tokens-00000.bin").write_bytes(b"123"), "has 3 bytes, expected 10"),
        (lambda f: (f / "shards.json").unlink(), "shards.json is missing; run 'yatsude tokenizer'"),
        (lambda f: (f / "shards.json").write_text("{"), "are damaged"),
        (lambda f: (f / "shards.json").write_text("{}"), "are damaged"),
        (lambda f: (f / "shards.json").write_text("[]"), "are damaged"),
        (lambda f: (f / "shards.json").write_bytes(b"\xff"), "are damaged"),
        (lambda f: damage_page(f, tokens=None), "are damaged"),
        (lambda f: (f / "characters.npy").unlink(), "characters.npy is missing"),
        (lambda f: (f / "characters.npy").write_bytes(b"x"), "are damaged"),
        (lambda f: (f / "characters.npy").write_bytes(b""), "are damaged"),
    ],
)
def test_damage_is_one_clear_error(tmp_path, damage, message):
    write(tmp_path, [[1, 2, 3]])
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        Shards(tmp_path)
