import numpy as np
import pytest

from yatsude.errors import DataError
from yatsude.evaluate.heldout import parts, texts
from yatsude.shards import Shards
from yatsude.tokenizer.build import build as build_tokenizer
from yatsude.tokenizer.settings import TokenizerSettings

from .conftest import rows, write_data


def test_parts_hold_every_document_once(home):
    heard = []
    kinds = parts(home / "tokenizer" / "held_out", listener=heard.append)
    whole = Shards(home / "tokenizer" / "held_out")
    assert list(kinds) == ["dialogue", "technical"]
    found = [document for part in kinds.values() for document in part.documents()]
    assert [document.tolist() for document in found] == [document.tolist() for document in whole.documents()]
    assert np.array_equal(np.concatenate([part.characters for part in kinds.values()]), whole.characters)
    assert heard == whole.characters.tolist()
    assert not hasattr(kinds["dialogue"], "sample")  # which would give text of every kind


def test_only_the_first_documents(home):
    kinds = parts(home / "tokenizer" / "held_out", documents=5)
    assert list(kinds) == ["dialogue"]
    assert len(list(kinds["dialogue"].documents())) == 5


def test_texts_stand_in_the_order_of_the_shards(home):
    found, kinds = texts(home / "data", home / "tokenizer", "held_out")
    assert found == [text for text, _, _ in rows(200, 230)]
    assert kinds == ["dialogue"] * 30 + ["technical"] * 30
    assert texts(home / "data", home / "tokenizer", "validation")[0] == [text for text, _, _ in rows(300, 310)]


def test_other_texts_are_refused(home, tmp_path):
    write_data(tmp_path / "data", rows(200, 210))
    build_tokenizer(TokenizerSettings(vocab_size=300), tmp_path / "data", tmp_path / "tokenizer")
    with pytest.raises(DataError, match=r"held_out holds 60 documents .* 20 of .*; give the data folder"):
        texts(tmp_path / "data", home / "tokenizer", "held_out")
