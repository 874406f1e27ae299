import pytest

from yatsude import manifest
from yatsude.checkpoint.provenance import chain, licences, notice
from yatsude.errors import DataError
from yatsude.manifest import Licence

ONE = Licence(source="one", licence="CC-BY-2.0", attribution="A", url="https://example.org")
TWO = Licence(source="two", licence="CC0-1.0", attribution="")


@pytest.fixture
def life(tmp_path):
    """A text's way into a model: data, then tokenizer, then train on both."""
    for name, inputs, entries in (
        ("data", [], [ONE, TWO]),
        ("tokenizer", ["data"], []),
        ("train", ["data", "tokenizer"], []),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        manifest.write(tmp_path / name, name, inputs=[tmp_path / entry for entry in inputs], licences=entries)
    return tmp_path


def test_every_stage_is_found_once(life):
    stages = chain([life / "train", life / "tokenizer"])
    assert [stage.stage for stage in stages] == ["train", "tokenizer", "data"]
    assert all(stage.manifest for stage in stages)
    assert licences(stages) == [ONE, TWO]


def test_a_stage_that_changed_since_is_known_by_checksum_alone(life):
    manifest.write(life / "data", "data", counts={"texts": 1}, licences=[ONE])
    stages = chain([life / "train"])
    data = next(stage for stage in stages if stage.stage == "data")
    assert data.manifest is data.path is None
    assert licences(stages) == [ONE, TWO]  # they travelled along


def test_a_folder_without_manifest_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json"):
        chain([tmp_path])


def test_the_notice_names_everybody():
    text = notice("Mine", [ONE, TWO])
    for words in ("Mine", "one", "CC-BY-2.0", "Credit: A", "https://example.org", "two", "Credit: not required"):
        assert words in text
