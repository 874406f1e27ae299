import pytest

from yatsude import recipe
from yatsude.errors import RecipeError
from yatsude.tune.settings import TuneSettings


def settings(values):
    return recipe.resolve({"tune": values}, {"tune": TuneSettings}, "tune", TuneSettings)


def test_one_rate_by_hand_leaves_tunings_own_defaults():
    changed, default = settings({"optimizer": {"rate": 1e-4}}).optimizer, TuneSettings().optimizer
    assert changed.rate == 1e-4
    assert (changed.embedding_rate, changed.muon_rate) == (default.embedding_rate, default.muon_rate)
    assert changed.weight_decay == default.weight_decay == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": ["pears"]}, r"tune\.sources: 'pears' is unknown; expected 'pairs' or 'file:PATH'"),
        ({"sources": []}, r"tune\.sources: there are none"),
        ({"conversations": 0}, r"tune\.conversations = 0: expected at least 1"),
        ({"steps": 0}, r"tune\.steps = 0: expected at least 1"),
        ({"decay": 2.0}, r"tune\.decay = 2\.0: expected a share"),
        ({"table": "train"}, r"unknown key 'table' in \[tune\]"),
    ],
)
def test_what_cannot_be_tuned_is_told_by_its_name(values, message):
    with pytest.raises(RecipeError, match=message):
        settings(values)
