import random

import numpy as np
import pytest

from yatsude.data.documents import Document
from yatsude.data.split import held_out
from yatsude.data.twins import clusters
from yatsude.errors import DataError


def document(text: str, domain: str = "dialogue") -> Document:
    return Document(id=text, text=text, source="s", domain=domain)


def twin_rich(count: int) -> list[str]:
    """Sentences in families that differ by a word."""
    pick = random.Random(1)
    names = ["太郎", "花子", "先生", "弟", "隣の人"]
    stems = ["".join(pick.choices("あかさたなはまやらわいきしちに", k=12)) for _ in range(count)]
    return [f"{name}は{stem}と言った。" for stem in stems for name in pick.sample(names, pick.randint(1, 5))]


def similarity(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def test_no_held_out_text_has_a_near_twin_in_train():
    texts = twin_rich(300)
    out = held_out([document(t) for t in texts], clusters(texts, 0.5), 0.1, seed=0)
    grams = [{t[i : i + 3] for i in range(len(t) - 2)} for t in texts]
    held, train = np.flatnonzero(out), np.flatnonzero(~out)
    assert 0.05 < sum(len(texts[i]) for i in held) / sum(map(len, texts)) <= 0.1
    assert max(similarity(grams[i], grams[j]) for i in held for j in train) < 0.5


def test_every_domain_gives_its_share():
    texts = [document(f"文{i:05d}です") for i in range(2000)] + [
        document("長" * 500 + str(i), "technical") for i in range(3)
    ]
    out = held_out(texts, np.arange(len(texts)), 0.02, seed=0)
    assert 30 <= out[:2000].sum() <= 40
    assert out[2000:].sum() == 1


def test_the_choice_depends_on_seed_and_texts_but_not_on_order():
    texts = [document(f"文{i:05d}です") for i in range(500)]

    def chosen(items, seed):
        out = held_out(items, np.arange(len(items)), 0.05, seed)
        return {item.text for item, held in zip(items, out, strict=True) if held}

    assert chosen(texts, 0) == chosen(texts[::-1], 0)
    assert chosen(texts, 0) != chosen(texts, 1)


def test_one_cluster_cannot_be_split():
    with pytest.raises(DataError, match="nothing can be held out: all 2 documents"):
        held_out([document("あ"), document("あ!")], np.zeros(2, np.int64), 0.1, 0)
