import itertools

import pytest

from yatsude.errors import RecipeError
from yatsude.spec.counts import count
from yatsude.spec.presets import LADDER, PRESETS, preset


def test_the_ladder_climbs_evenly_to_a_billion():
    totals = [count(PRESETS[name]).total for name in LADDER]
    assert totals[-1] == pytest.approx(1e9, rel=0.25)
    for small, large in itertools.pairwise(totals):
        assert 1.9 < large / small < 2.6


def test_every_small_preset_has_eight_experts_and_a_shared_one():
    for name in ("pico", *LADDER):
        config = PRESETS[name]
        assert (config.n_routed_experts, config.num_experts_per_tok, config.n_shared_experts) == (8, 2, 1)


def test_every_width_suits_the_grouped_product():
    for name, config in PRESETS.items():
        assert config.hidden_size % 8 == config.moe_intermediate_size % 8 == 0, name


def test_fields_can_be_replaced():
    assert preset("tiny", vocab_size=4000).vocab_size == 4000
    assert preset("tiny") is not None


def test_an_unknown_name_or_field_is_one_line_with_the_nearest():
    with pytest.raises(RecipeError, match="unknown preset 'tny'; did you mean 'tiny'"):
        preset("tny")
    with pytest.raises(RecipeError, match="unknown preset 'xyz'; known: pico, nano"):
        preset("xyz")
    with pytest.raises(RecipeError, match=r"'hidden'.*did you mean 'hidden_size'"):
        preset("tiny", hidden=3)
