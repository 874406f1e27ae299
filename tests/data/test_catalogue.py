import pytest

from yatsude.data.catalogue import SOURCES, find
from yatsude.data.settings import DataSettings
from yatsude.errors import DataError, RecipeError


def test_every_named_source_states_its_terms():
    for source in SOURCES:
        assert source.licence
        assert source.attribution
        assert source.url.startswith("https://")
        assert source.bytes > 0
        assert find(source.name) is source


def test_own_files_and_hub():
    assert find("file:/a/b.txt").licence == "owner's own"
    assert find("hf:owner/name:test").url == "https://huggingface.co/datasets/owner/name"


def test_folders_of_own_files_are_not_passed_on():
    assert find("file:/home/me/plans/b.txt").page().source == "file:b.txt"
    assert find("file:/home/me/plans/").label == "file:plans"
    assert find("hf:owner/name").label == "hf:owner/name"
    assert find("tatoeba-ja").page().source == "tatoeba-ja"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("tatoeba", r"did you mean 'tatoeba-ja'\?; own texts are"), ("xyz", "known: "), ("file:", "PATH")],
)
def test_unknown_names(name, hint):
    with pytest.raises(DataError, match=hint):
        find(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": ()},
        {"held_out_fraction": 0.0},
        {"validation_fraction": 0.6},
        {"validation_fraction": 0.5, "held_out_fraction": 0.5},
        {"twin_similarity": 0.1},
        {"min_characters": 5, "max_characters": 4},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        DataSettings(**wrong)
