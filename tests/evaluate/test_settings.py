import pytest

from yatsude.errors import RecipeError
from yatsude.evaluate.settings import EvaluateSettings


@pytest.mark.parametrize("change", [{"orders": ()}, {"orders": (0,)}, {"window": 1}, {"documents": 0}, {"samples": -1}])
def test_impossible_numbers_are_named(change):
    with pytest.raises(RecipeError, match=rf"evaluate\.{next(iter(change))} = .*expected at least"):
        EvaluateSettings(**change)


@pytest.mark.parametrize("change", [{"temperature": 5}, {"temperature": -0.1}, {"top_p": 0}, {"top_p": 1.1}])
def test_a_sampling_that_no_engine_does_is_refused_at_once(change):
    with pytest.raises(RecipeError, match=r"evaluate\.temperature = .*expected a temperature from 0 to 2"):
        EvaluateSettings(**change)
