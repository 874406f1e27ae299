import json

import pytest

from yatsude.errors import CheckpointError, RecipeError
from yatsude.spec.hf import to_hf
from yatsude.spec.info import RESIDENCE, find, render
from yatsude.spec.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_the_page_says_what_is_needed(name):
    page = render(PRESETS[name], name=name)
    for words in ("routed experts", "active", "resident", "read for one token", "cache for each token", "training"):
        assert words in page
    assert RESIDENCE in page
    assert "94 % less" in page


def test_figures_of_the_large_preset():
    page = render(PRESETS["700b"], name="700b")
    assert "671,026,404,352" in page
    assert "256 routed experts, 8 a token, from 4 of 8 groups, 1 shared" in page
    assert "1.342 TB" in page
    assert "73.25 GB" in page


def test_columns_are_in_line():
    rows = render(preset("tiny")).split("\n\n")[1].splitlines()
    assert len({len(row) for row in rows}) == 1


def test_a_folder_is_read_and_a_name_is_looked_up(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_hf(preset("nano"))))
    assert find(str(tmp_path)) == find("nano") == preset("nano")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        find(str(tmp_path / "nothing"))
    with pytest.raises(RecipeError, match="did you mean 'nano'"):
        find("nanno")
