import pytest

from yatsude import manifest
from yatsude.checkpoint.provenance import chain, licences, notice
from yatsude.errors import DataError
from yatsude.manifest import Licence

ONE = Licence(source="one", licence="CC-BY-2.0", attribution="A", url="https://example.org")
TWO = Licence(source="two", licence="CC0-1.0", attribution="")


@pytest.fixture
def life(tmp_path):
    """A text's way into a model, in folders as a run has them."""
    for place, inputs, entries in (
        ("data", [], [ONE, TWO]),
        ("tokenizer", ["data"], []),
        ("train/model", ["tokenizer"], []),
        ("tune/model", ["train/model"], []),
    ):
        stage = place.partition("/")[0]
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "file").write_text(stage)
        manifest.write(tmp_path / place, stage, inputs=[tmp_path / entry for entry in inputs], licences=entries)
    return tmp_path


def test_every_stage_is_found_once(life):
    stages = chain([life / "tune" / "model", life / "tokenizer"])
    assert [stage.stage for stage in stages] == ["tune", "tokenizer", "train", "data"]
    assert all(stage.manifest for stage in stages)
    assert licences(stages) == [ONE, TWO]


def test_a_stage_that_changed_since_is_known_by_checksum_alone(life):
    (life / "data" / "file").write_text("other")
    manifest.write(life / "data", "data", licences=[ONE])
    stages = chain([life / "train" / "model"])
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
