import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from yatsude import manifest
from yatsude.data import catalogue, reading
from yatsude.data.build import _safe, build, digest, unreached
from yatsude.data.documents import HELD_OUT, TRAIN, VALIDATION, documents
from yatsude.data.settings import DataSettings
from yatsude.errors import DataError, MachineError, NetworkError

SPLITS = (TRAIN, VALIDATION, HELD_OUT)


@pytest.fixture
def own(tmp_path):
    """300 different sentences as one file source, with a few that cleaning drops."""
    pick = random.Random(0)
    texts = ["".join(pick.choices("あいうえおかきくけこさしすせそたちつてと", k=20)) for _ in range(300)]
    texts += [texts[0], "短い", "English only text."]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return f"file:{path}"


def settings(tmp_path, *sources, **more):
    return DataSettings(
        sources=sources, cache=str(tmp_path / "cache"), validation_fraction=0.1, held_out_fraction=0.05, **more
    )


def test_every_document_is_accounted_for(own, tmp_path):
    summary = build(settings(tmp_path, own), tmp_path / "out")
    parts = {split: list(documents(tmp_path / "out", split)) for split in SPLITS}
    page = manifest.read(tmp_path / "out", "data")
    assert [len(rows) for rows in parts.values()] == [255, 30, 15]
    assert (summary.train_documents, summary.validation_documents, summary.held_out_documents) == (255, 30, 15)
    assert page.counts["documents_in"] == 303 == page.counts["documents"] + 3
    assert summary.sources[0].dropped == {"duplicate": 1, "too_short": 1, "not_japanese": 1}
    for split, rows in parts.items():
        assert page.counts[f"{split}.documents"] == len(rows)
        assert page.counts[f"{split}.characters"] == sum(len(row.text) for row in rows)
    assert page.licences[0].licence == "owner's own"
    assert set(page.files) == {*(f"{split}/part-00000.parquet" for split in SPLITS), "recipe.toml"}
    manifest.check(tmp_path / "out", page)
    assert len({row.text for rows in parts.values() for row in rows}) == 300


def test_the_manifest_names_files_without_their_folders(own, tmp_path):
    other = tmp_path / "other" / "own.jsonl"
    other.parent.mkdir()
    other.write_text('{"text": "別のフォルダーにある文です。"}\n', encoding="utf-8")
    build(settings(tmp_path, own, f"file:{other}"), tmp_path / "out")
    page = manifest.read(tmp_path / "out", "data")
    assert page.counts["file:own.jsonl.documents_in"] == 304
    assert [entry.source for entry in page.licences] == ["file:own.jsonl"]
    assert str(tmp_path) not in (tmp_path / "out" / manifest.NAME).read_text(encoding="utf-8")


def test_two_texts_are_enough_and_what_they_are_used_for_is_said(tmp_path, capsys):
    path = tmp_path / "two.jsonl"
    path.write_text('{"text": "これは一つ目の文です。"}\n{"text": "そして別の話がここにある。"}\n', encoding="utf-8")
    build(settings(tmp_path, f"file:{path}"), tmp_path / "out")
    train, validation, held_out = (list(documents(tmp_path / "out", split)) for split in SPLITS)
    assert len(train) == 1
    assert validation == held_out != train
    assert "validation is the held-out text itself" in capsys.readouterr().err


def test_the_same_settings_give_the_same_bytes_and_another_seed_another_order(own, tmp_path):
    def built(name, seed):
        build(settings(tmp_path, own, seed=seed), tmp_path / name)
        return [row.id for row in documents(tmp_path / name, "train")]

    assert built("a", 0) == built("b", 0) != built("c", 1)
    assert (tmp_path / "a/train/part-00000.parquet").read_bytes() == (
        tmp_path / "b/train/part-00000.parquet"
    ).read_bytes()


def test_a_changed_file_of_one_s_own_makes_a_folder_old(own, tmp_path):
    asked = settings(tmp_path, own)
    build(asked, tmp_path / "out")
    assert manifest.is_current(tmp_path / "out", "data", digest(asked))
    path = Path(own.removeprefix("file:"))
    path.write_text(path.read_text(encoding="utf-8") + '{"text": "後から書き足した一文です。"}\n', encoding="utf-8")
    assert not manifest.is_current(tmp_path / "out", "data", digest(asked))
    assert digest(asked) != digest(settings(tmp_path, own, seed=1))


def test_an_optional_source_is_skipped_with_its_reason(own, monkeypatch, tmp_path, capsys):
    def fail(source, folder):
        raise NetworkError("no way out")

    monkeypatch.setitem(reading._READERS, "manpages", fail)
    monkeypatch.setitem(reading._READERS, "tatoeba", fail)
    summary = build(settings(tmp_path, "manpages-ja", own), tmp_path / "out")
    assert summary.skipped == {"manpages-ja": "no way out"}
    assert "manpages-ja is left out: no way out" in capsys.readouterr().err
    page = manifest.read(tmp_path / "out")
    assert [entry.source for entry in page.licences] == ["file:own.jsonl"]
    assert page.counts["manpages-ja.skipped"] == "no way out"
    assert unreached(tmp_path / "out") == ["manpages-ja"]
    with pytest.raises(NetworkError):
        build(settings(tmp_path, "tatoeba-ja", own), tmp_path / "out")
    with pytest.raises(DataError, match=r"no documents left of manpages-ja: manpages-ja was left out \(no way out\)"):
        build(settings(tmp_path, "manpages-ja"), tmp_path / "out")


def test_a_source_that_this_machine_cannot_have_is_not_asked_for_again(own, monkeypatch, tmp_path):
    def fail(source, folder):
        raise MachineError("no apt-get")

    monkeypatch.setitem(reading._READERS, "manpages", fail)
    assert build(settings(tmp_path, "manpages-ja", own), tmp_path / "out").skipped
    assert unreached(tmp_path / "out") == []


def test_a_failed_build_leaves_the_old_folder(own, tmp_path):
    build(settings(tmp_path, own), tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="no documents left"):
        build(settings(tmp_path, f"file:{tmp_path / 'empty.txt'}"), tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_every_source_has_a_cache_folder_of_its_own():
    names = ["hf:a/b_c", "hf:a_b/c", "hf:a/b:c", "tatoeba-ja", "manpages-ja"]
    folders = [_safe(catalogue.find(name)) for name in names]
    assert len(set(folders)) == len(names)
    assert folders[-2:] == ["tatoeba-ja", "manpages-ja"]  # as they were: their downloads are kept
    assert not any("/" in folder for folder in folders)


def test_settings_and_catalogue_import_nothing_heavy():
    code = "import sys, yatsude.data.settings, yatsude.data.catalogue; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert catalogue.find("tatoeba-ja").domain == "dialogue"
