import pytest

from yatsude import manifest
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.tokenizer.tokenizer import Tokenizer
from yatsude.tokenizer.train import train

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TEXTS = ["今日は、友だちと駅の前で会います。", "明日は雨が降るでしょう。", "I meet a friend at the station today."]


def write_split(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    texts, english = zip(*rows, strict=True)
    table = pa.table({"text": list(texts), "domain": ["dialogue"] * len(texts), "english": list(english)})
    pq.write_table(table, folder / "part-00000.parquet")


@pytest.fixture
def write_data():
    """Write a data folder from pairs of (Japanese, English or None), one list a split."""

    def write(folder, train_rows, validation_rows):
        write_split(folder / "train", train_rows)
        write_split(folder / "validation", validation_rows)
        manifest.write(folder, "data")
        return folder

    return write


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer(train(TEXTS * 3, TokenizerSettings(vocab_size=320)))
