import pytest

from yatsude.errors import RecipeError
from yatsude.spec.settings import ModelSettings, resolve


def test_single_fields_lie_over_the_preset():
    settings = ModelSettings(preset="tiny", num_hidden_layers=3)
    assert resolve(settings, 999).num_hidden_layers == 3
    assert (resolve(settings, 999).vocab_size, resolve(settings).vocab_size) == (999, 8192)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "tny"}, "unknown preset 'tny'; did you mean 'tiny'"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok = 9: expected 1 to 8"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_at_once(values, message):
    with pytest.raises(RecipeError, match=message):
        ModelSettings(**values)
