import hashlib
import itertools
import random

import numpy as np
import pytest

from yatsude.data.documents import Document
from yatsude.data.split import set_aside
from yatsude.data.twins import clusters
from yatsude.errors import DataError


def document(text: str, domain: str = "dialogue") -> Document:
    return Document(id=text, text=text, source="s", domain=domain)


def parts(texts, labels=None, validation=0.02, held_out=0.02, seed=0):
    """Training, validation and held-out documents, by their places."""
    labels = np.arange(len(texts)) if labels is None else labels
    found = set_aside(texts, labels, validation=validation, held_out=held_out, seed=seed)
    return [np.flatnonzero(mask) for mask in (~(found[0] | found[1]), *found)]


def twin_rich(count: int) -> list[str]:
    """Sentences in families that differ by a word."""
    pick = random.Random(1)
    names = ["太郎", "花子", "先生", "弟", "隣の人"]
    stems = ["".join(pick.choices("あかさたなはまやらわいきしちに", k=12)) for _ in range(count)]
    return [f"{name}は{stem}と言った。" for stem in stems for name in pick.sample(names, pick.randint(1, 5))]


def similarity(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def test_no_text_has_a_near_twin_in_another_part():
    texts = twin_rich(300)
    labels = clusters(texts, 0.5)
    found = parts([document(t) for t in texts], labels, validation=0.1, held_out=0.1)
    assert sorted(np.concatenate(found)) == list(range(len(texts)))
    grams = [{t[i : i + 3] for i in range(len(t) - 2)} for t in texts]
    for one, other in itertools.combinations(found, 2):
        assert not set(labels[one]) & set(labels[other])
        assert max(similarity(grams[i], grams[j]) for i in one for j in other) < 0.5
    for part in found[1:]:
        assert 0.05 < sum(len(texts[i]) for i in part) / sum(map(len, texts)) <= 0.1


def test_texts_with_twins_are_set_aside_as_often_as_others():
    texts = [document(f"文{i:05d}です") for i in range(4000)]
    labels = np.array([i - i % 20 if i < 2000 else i for i in range(4000)])  # the first half lies in clusters of 20
    counts = np.zeros(3)
    for seed in range(10):
        found = parts(texts, labels, validation=0.1, held_out=0.1, seed=seed)
        counts += [(part < 2000).mean() for part in found]
    assert np.all(np.abs(counts / 10 - 0.5) < 0.06)


def test_every_domain_gives_its_share():
    texts = [document(f"文{i:05d}です") for i in range(2000)] + [
        document("長" * 500 + str(i), "technical") for i in range(3)
    ]
    for part in parts(texts)[1:]:
        assert 30 <= (part < 2000).sum() <= 40
        assert (part >= 2000).sum() == 1


def test_the_choice_depends_on_seed_and_texts_but_not_on_order():
    texts = [document(f"文{i:05d}です") for i in range(500)]

    def chosen(items, seed):
        return [{items[i].text for i in part} for part in parts(items, validation=0.05, held_out=0.05, seed=seed)]

    assert chosen(texts, 0) == chosen(texts[::-1], 0)
    assert all(one != other for one, other in zip(chosen(texts, 0), chosen(texts, 1), strict=True))


def test_validation_comes_first_by_hash_and_the_held_out_text_after_it():
    texts = [document(f"文{i:05d}です") for i in range(1000)]

    def twice(text: str) -> bytes:
        once = hashlib.blake2b(f"0 {text}".encode(), digest_size=8).digest()
        return hashlib.blake2b(once, digest_size=8).digest()

    by_hash = sorted(range(1000), key=lambda i: twice(texts[i].text))
    _, validation, held_out = parts(texts, validation=0.02, held_out=0.03)
    assert sorted(by_hash[:20]) == validation.tolist()
    assert sorted(by_hash[20:50]) == held_out.tolist()


def test_validation_is_the_same_however_much_is_held_out():
    texts = twin_rich(300)
    labels = clusters(texts, 0.5)
    found = [parts([document(t) for t in texts], labels, held_out=share)[1].tolist() for share in (0.02, 0.3)]
    assert found[0] == found[1]


@pytest.mark.parametrize("share", [0.02, 0.4, 0.5])
@pytest.mark.parametrize("sizes", [(9, 9, 9), (1, 1, 999), (999, 1, 1), (1, 999, 999), (5, 6, 7, 8)])
def test_three_texts_are_enough_for_three_parts(share, sizes):
    texts = [document(chr(ord("あ") + i) * size) for i, size in enumerate(sizes)]
    found = parts(texts, validation=share, held_out=share)
    assert all(len(part) for part in found)
    assert sorted(np.concatenate(found)) == list(range(len(texts)))


def test_of_two_texts_one_is_learnt_and_the_other_is_validation_and_held_out():
    train, validation, held_out = parts([document("長い" * 50), document("短い")])
    assert (train.tolist(), validation.tolist(), held_out.tolist()) == ([0], [1], [1])


def test_a_small_domain_gives_up_its_validation_first_and_then_its_held_out_text():
    texts = [document(f"文{i}です") for i in range(9)]
    texts += [document("二つの一", "two"), document("二つの二つ目", "two"), document("一つだけ", "one")]
    train, validation, held_out = parts(texts)
    assert [texts[i].domain for i in validation] == ["dialogue"]
    assert sorted(texts[i].domain for i in held_out) == ["dialogue", "two"]
    assert sorted(texts[i].domain for i in train) == ["dialogue"] * 7 + ["one", "two"]
    assert not set(validation) & set(held_out)


def test_one_cluster_cannot_be_split():
    with pytest.raises(DataError, match="nothing can be held out: all 2 documents"):
        parts([document("あ"), document("あ!")], np.zeros(2, np.int64))
