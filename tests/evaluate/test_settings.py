import pytest

from yatsude.errors import RecipeError
from yatsude.evaluate.settings import EvaluateSettings


@pytest.mark.parametrize("change", [{"orders": ()}, {"orders": (0,)}, {"window": 1}, {"documents": 0}, {"samples": -1}])
def test_impossible_numbers_are_named(change):
    with pytest.raises(RecipeError, match=rf"evaluate\.{next(iter(change))} = .*expected at least"):
        EvaluateSettings(**change)
