import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from yatsude.data.catalogue import find
from yatsude.data.sources import files
from yatsude.errors import DataError


def read(path):
    return list(files.read(find(f"file:{path}"), path))


def test_a_folder_of_every_kind_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("一つの文書。\n\n二段落目。", encoding="utf-8")
    (tmp_path / "b" / "c.txt.gz").write_bytes(gzip.compress("圧縮。".encode()))
    lines = [{"text": "一", "id": "x", "english": "one"}, {"text": "二", "other": 1}]
    content = "\n".join(json.dumps(line) for line in lines).encode() + b"\n\n"
    (tmp_path / "d.jsonl.zst").write_bytes(zstandard.compress(content))
    pq.write_table(pa.table({"text": ["三"], "n": [1]}), tmp_path / "e.parquet")
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    assert [(row.id, row.text, row.english) for row in read(tmp_path)] == [
        ("a.txt#0", "一つの文書。\n\n二段落目。", None),
        ("b/c.txt.gz#0", "圧縮。", None),
        ("d.jsonl.zst#x", "一", "one"),
        ("d.jsonl.zst#1", "二", None),
        ("e.parquet#0", "三", None),
    ]


def test_the_kind_of_text_may_be_named(tmp_path):
    (tmp_path / "a.txt").write_text("第一条。", encoding="utf-8")
    named = find(f"file:{tmp_path}#law")
    assert [(row.text, row.domain) for row in files.read(named, tmp_path)] == [("第一条。", "law")]
    assert files.state(named) == files.state(find(f"file:{tmp_path}"))
    assert [row.domain for row in read(tmp_path / "a.txt")] == ["own"]
    assert find(f"file:{tmp_path}/a.txt#法令").domain == "法令"
    (tmp_path / "notes#law").mkdir()  # a folder that is there is a folder
    (tmp_path / "notes#law" / "b.txt").write_text("日記。", encoding="utf-8")
    assert [(row.text, row.domain) for row in read(tmp_path / "notes#law")] == [("日記。", "own")]


def test_endings_in_capitals_and_endings_within_a_name(tmp_path):
    (tmp_path / "A.TXT.GZ").write_bytes(gzip.compress("大文字。".encode()))
    (tmp_path / "B.JSONL.ZST").write_bytes(zstandard.compress(json.dumps({"text": "行。"}).encode()))
    (tmp_path / "c.jsonl.txt").write_text("ただの文。", encoding="utf-8")
    assert [row.text for row in read(tmp_path)] == ["大文字。", "行。", "ただの文。"]


def test_every_frame_of_a_compressed_file_is_read(tmp_path):
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress("一。".encode()) + zstandard.compress("二。".encode()))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("三。".encode()) + gzip.compress("四。".encode()))
    assert [row.text for row in read(tmp_path)] == ["一。二。", "三。四。"]


def test_a_mark_of_byte_order_is_no_letter(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "一。"}\n', encoding="utf-8-sig")
    (tmp_path / "b.txt").write_text("二。", encoding="utf-8-sig")
    assert [row.text for row in read(tmp_path)] == ["一。", "二。"]


def test_a_row_without_id_goes_by_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "一。", "id": null}\n{"text": "二。", "id": 0}\n', encoding="utf-8")
    assert [row.id for row in read(tmp_path)] == ["a.jsonl#0", "a.jsonl#0"]


def test_a_long_text_is_cut_at_empty_lines(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(["あ" * 4000] * 5), encoding="utf-8")
    assert [len(row.text) for row in read(tmp_path / "a.txt")] == [8002, 8002, 4000]


def test_a_long_part_between_empty_lines_is_cut_at_line_ends(tmp_path):
    (tmp_path / "a.txt").write_text("題\n\n" + "\n".join(["あ" * 4000] * 5), encoding="utf-8")
    assert [len(row.text) for row in read(tmp_path / "a.txt")] == [1, 8001, 8001, 4000]


@given(st.text("あ\n ", max_size=60), st.integers(1, 20))
def test_cutting_loses_no_letter(text, longest):
    parts = list(files.pieces(text, longest))
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_other_encodings_are_named_with_their_place(tmp_path):
    path = tmp_path / "sjis.txt"
    path.write_bytes(b"ascii " + "日本語".encode("cp932"))
    with pytest.raises(DataError, match=r"sjis\.txt is not UTF-8: byte 0x93 at offset 6; convert it, .*iconv -f CP932"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text"', r"line 2 is not JSON"),
        ("a.jsonl", b'{"body": "x"}', r"line 1 has the fields body; expected .* 'text'"),
        ("a.jsonl", b"[1]", r"line 1 has no object"),
        ("a.jsonl", b'{"text": 5}', r"'text' is 5; expected a string"),
        ("a.jsonl", b'{"text": "x", "english": 5}', r"'english' is 5"),
        ("a.jsonl", rb'{"text": "\ud83d"}', r"line 1 holds half of a surrogate pair"),
        ("a.jsonl", rb'{"text": "x", "english": "\udc00"}', r"line 1 holds half of a surrogate pair"),
        ("a.parquet", b"PAR1", r"not a readable Parquet file"),
        ("a.txt.gz", b"no gzip", r"cannot be decompressed"),
        ("a.txt.zst", b"no zstd", r"cannot be decompressed"),
        ("a.txt.zst", zstandard.compress(b"x" * 99)[:-3], r"cannot be decompressed \(it ends in the middle of a frame"),
        ("a.jsonl", b"[" * 100_000, r"line 1 is not JSON"),
        ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", r"line 1 is not JSON"),
        ("a.pdf", b"", r"is not read: expected a name ending in \.txt"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="no file or folder at"):
        read(tmp_path / "missing")
    with pytest.raises(DataError, match="holds no text"):
        read(tmp_path)
    pq.write_table(pa.table({"body": ["三"]}), tmp_path / "e.parquet")
    with pytest.raises(DataError, match="has the columns body; expected one called 'text'"):
        read(tmp_path)
