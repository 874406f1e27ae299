import json
import shutil

import pytest
import tokenizers
import torch

from yatsude import manifest
from yatsude.checkpoint import export as module
from yatsude.checkpoint import hf
from yatsude.checkpoint.export import Origin, export
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.settings import ExportSettings
from yatsude.errors import CheckpointError, MachineError


@pytest.fixture
def foreign(model, tokenizer, tmp_path):
    """A folder as it comes from elsewhere: no manifest of ours."""
    folder = tmp_path / "their-model"
    folder.mkdir()
    hf.write(model, folder, torch.float32, 10**9)
    (folder / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    (folder / "LICENSE").write_text("Their licence.")
    (folder / "NOTICE.txt").write_text("Their notice.")
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage:\n- ja\n---\n# Theirs\n")
    return folder


def convert(source, target, licence=None):
    inputs = (source,) if (source / "manifest.json").is_file() else ()
    origin = Origin(models=(source,), stage="convert", inputs=inputs, licence=licence, done="Stored anew.")
    return export(Folder(source), target, ExportSettings(name=target.name, dtype="float32"), origin)


def test_two_bases_of_one_name_keep_a_licence_each(foreign, tmp_path):
    other = tmp_path / "elsewhere" / "their-model"
    shutil.copytree(foreign, other)
    (other / "LICENSE").write_text("Another licence.")
    origin = Origin(models=(foreign, other), stage="merge")
    export(Folder(foreign), tmp_path / "ours", ExportSettings(), origin)
    texts = {path.parent.name: path.read_text() for path in (tmp_path / "ours" / "bases").glob("*/LICENSE")}
    assert texts == {"their-model": "Their licence.", "their-model-2": "Another licence."}


def test_different_licences_need_a_word(foreign, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(foreign, other)
    (other / "README.md").write_text("---\nlicense: llama3.1\n---\n")
    origin = Origin(models=(foreign, other), stage="merge")
    with pytest.raises(CheckpointError, match=r"different licences, llama3\.1 and mit"):
        export(Folder(foreign), tmp_path / "ours", ExportSettings(), origin)
    export(Folder(foreign), tmp_path / "ours", ExportSettings(licence="llama3.1"), origin)
    assert (tmp_path / "ours" / "README.md").read_text().startswith("---\nlicense: llama3.1\n")
    with pytest.raises(CheckpointError, match="there is no text of it here"):
        export(Folder(foreign), tmp_path / "none", ExportSettings(licence="gpl-3.0"), origin)


def test_what_stands_there_is_never_replaced(foreign, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(MachineError, match="mine exists"):
        convert(foreign, mine)
    with pytest.raises(MachineError, match="their-model exists"):
        convert(foreign, foreign)
    assert (mine / "thesis.txt").is_file()


def test_what_comes_to_stand_there_meanwhile_stays(foreign, tmp_path, monkeypatch):
    target = tmp_path / "ours"

    def slow(*args):
        target.mkdir()
        (target / "thesis.txt").write_text("x")
        return verify(*args)

    verify = module.verify
    monkeypatch.setattr(module, "verify", slow)
    with pytest.raises(MachineError, match="ours exists"):
        convert(foreign, target)
    assert [path.name for path in target.iterdir()] == ["thesis.txt"]
    assert not list(tmp_path.glob(".ours*"))


def test_a_licence_of_blanks_is_none(foreign, tmp_path):
    (foreign / "LICENSE").write_text(" \n")
    with pytest.raises(CheckpointError, match="has no LICENSE file"):
        convert(foreign, tmp_path / "ours")


def test_where_an_answer_ends_and_how_it_is_drawn_is_theirs(foreign, tmp_path):
    """A model without the file gets its own ends and no invented sampling."""
    convert(foreign, tmp_path / "a")
    config = Folder(foreign).config
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": list(config.eos_token_id)}
    assert json.loads((tmp_path / "a/generation_config.json").read_text()) == {**ends, "pad_token_id": 1}
    theirs = {"eos_token_id": [2, 9], "do_sample": False, "repetition_penalty": 1.1}
    (foreign / "generation_config.json").write_text(json.dumps(theirs))
    convert(foreign, tmp_path / "b")
    assert json.loads((tmp_path / "b/generation_config.json").read_text()) == theirs


def test_a_vocabulary_that_is_a_list_passes_through(foreign, tmp_path):
    """Unigram's, as LLM-jp has it."""
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0))
    unigram.save(str(foreign / "tokenizer.json"))
    convert(foreign, tmp_path / "ours")
    assert (tmp_path / "ours/tokenizer.json").read_bytes() == (foreign / "tokenizer.json").read_bytes()


def test_licence_and_notice_go_along_as_files(foreign, tmp_path):
    convert(foreign, tmp_path / "ours")
    place = tmp_path / "ours" / "bases" / "their-model"
    assert (place / "LICENSE").read_text() == "Their licence."
    assert (place / "NOTICE.txt").read_text() == "Their notice."
    entry = manifest.read(tmp_path / "ours").licences[0]
    assert (entry.source, entry.licence) == ("model:their-model", "mit")
    card = (tmp_path / "ours" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert (tmp_path / "ours" / "LICENSE").read_text() == "Their licence."
    checksum = manifest.read(tmp_path / "ours").counts["from their-model"]
    assert checksum == manifest.read(tmp_path / "ours").counts["tensors_sha256"]
    assert "model:their-model" in card
    assert "Stored anew." in card
    assert "their-model" in (tmp_path / "ours" / "NOTICE").read_text()


def test_bases_of_bases_go_along_too(foreign, tmp_path):
    convert(foreign, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "again")
    bases = tmp_path / "again" / "bases"
    assert {path.name for path in bases.iterdir()} == {"their-model", "ours"}
    assert (bases / "their-model" / "LICENSE").read_text() == "Their licence."
    sources = [entry.source for entry in manifest.read(tmp_path / "again").licences]
    assert sources == ["model:their-model", "model:ours"]
    assert (tmp_path / "again" / "LICENSE").read_text() == "Their licence."
    assert len(list((tmp_path / "again" / "provenance").iterdir())) == 1


def test_without_the_text_of_a_licence_nothing_is_written(foreign, tmp_path):
    (foreign / "LICENSE").unlink()
    with pytest.raises(CheckpointError, match=r"their-model has no LICENSE file.*--i-have-the-licence"):
        convert(foreign, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    with pytest.raises(CheckpointError, match="No such file"):
        convert(foreign, tmp_path / "ours", tmp_path / "none.txt")
    (tmp_path / "empty").write_text("")
    with pytest.raises(CheckpointError, match="is empty"):
        convert(foreign, tmp_path / "ours", tmp_path / "empty")
    text = tmp_path / "text"
    text.write_text("I asked; here it is.")
    convert(foreign, tmp_path / "ours", text)
    assert (tmp_path / "ours" / "bases" / "their-model" / "LICENSE").read_text() == "I asked; here it is."


def test_what_a_run_trained_itself_is_no_base(foreign, tokenizer, tmp_path):
    (foreign / "LICENSE").unlink()
    manifest.write(foreign, "train", inputs=[tokenizer])
    convert(foreign, tmp_path / "ours")
    assert not (tmp_path / "ours" / "bases").exists()
