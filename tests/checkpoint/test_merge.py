import pytest
import torch

from yatsude.checkpoint.hf import InMemory
from yatsude.checkpoint.merge import Merged
from yatsude.errors import CheckpointError, RecipeError

NAME = "model.layers.1.mlp.experts.3.up_proj.weight"


@pytest.fixture
def two(build):
    first, second = build(), build()
    with torch.no_grad():
        for weight in second.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)))
    return InMemory(first), InMemory(second)


def test_an_average_is_weighted(two):
    one, other = (model.read(NAME) for model in two)
    torch.testing.assert_close(Merged(two, [1, 1]).read(NAME), (one + other) / 2)
    torch.testing.assert_close(Merged(two, [3, 1]).read(NAME), 0.75 * one + 0.25 * other)
    assert torch.equal(Merged(two[:1], [7.0]).read(NAME), one)
    torch.testing.assert_close(Merged(two, [1, 1]).read(NAME, (3, 9)), ((one + other) / 2)[3:9])


def test_task_vectors_are_added_to_the_base(two):
    base, tuned = two
    one, other = base.read(NAME), tuned.read(NAME)
    torch.testing.assert_close(Merged([tuned], [0.5], base).read(NAME), one + 0.5 * (other - one))
    torch.testing.assert_close(Merged([tuned, tuned], [1.0, -1.0], base).read(NAME), one)


def test_what_does_not_fit_is_named(build, two):
    with pytest.raises(CheckpointError, match="differ in num_hidden_layers: 3 and 2"):
        Merged([two[0], InMemory(build(num_hidden_layers=2))], [1, 1])
    with pytest.raises(RecipeError, match="1 weights for 2 models"):
        Merged(two, [1])
    with pytest.raises(RecipeError, match="sum above 0"):
        Merged(two, [1, -1])
