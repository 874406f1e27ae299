import pytest
import torch

from yatsude import manifest
from yatsude.checkpoint import hf
from yatsude.checkpoint.export import Origin, export
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.settings import ExportSettings
from yatsude.errors import CheckpointError


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
    return export(Folder(source), target, ExportSettings(name=target.name), origin)


def test_licence_and_notice_go_along_as_files(foreign, tmp_path):
    convert(foreign, tmp_path / "ours")
    place = tmp_path / "ours" / "bases" / "their-model"
    assert (place / "LICENSE").read_text() == "Their licence."
    assert (place / "NOTICE.txt").read_text() == "Their notice."
    entry = manifest.read(tmp_path / "ours").licences[0]
    assert (entry.source, entry.licence) == ("model:their-model", "mit")
    card = (tmp_path / "ours" / "README.md").read_text()
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
    assert len(list((tmp_path / "again" / "provenance").iterdir())) == 1


def test_without_the_text_of_a_licence_nothing_is_written(foreign, tmp_path):
    (foreign / "LICENSE").unlink()
    with pytest.raises(CheckpointError, match=r"their-model has no LICENSE file.*--i-have-the-licence"):
        convert(foreign, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    with pytest.raises(CheckpointError, match="No such file"):
        convert(foreign, tmp_path / "ours", tmp_path / "none.txt")
    text = tmp_path / "text"
    text.write_text("I asked; here it is.")
    convert(foreign, tmp_path / "ours", text)
    assert (tmp_path / "ours" / "bases" / "their-model" / "LICENSE").read_text() == "I asked; here it is."


def test_what_a_run_trained_itself_is_no_base(foreign, tokenizer, tmp_path):
    (foreign / "LICENSE").unlink()
    manifest.write(foreign, "train", inputs=[tokenizer])
    convert(foreign, tmp_path / "ours")
    assert not (tmp_path / "ours" / "bases").exists()
