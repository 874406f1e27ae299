import pytest

from yatsude.data.documents import Document, documents, write
from yatsude.errors import DataError


def test_round_trip(tmp_path):
    rows = [
        Document(id=str(i), text=f"文{i}\n二行目", source="s", domain="d", english="e" if i % 2 else None)
        for i in range(10_000)
    ]
    write(tmp_path / "train" / "part-00000.parquet", iter(rows))
    assert list(documents(tmp_path, "train")) == rows


def test_missing_and_damaged_splits_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no held_out documents in .*run 'yatsude data'"):
        next(documents(tmp_path, "held_out"))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "part-00000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"part-00000\.parquet is damaged"):
        next(documents(tmp_path, "train"))
