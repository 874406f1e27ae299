"""Updates on ranks are those of one process, given the same gradients."""

import pytest
import steps
import torch
from ranks import run
from torch.distributed.tensor import DTensor

from yatsude.errors import RecipeError
from yatsude.parallel.mesh import Mesh
from yatsude.spec.parallel import ParallelSettings
from yatsude.train.optimizer import Optimizer
from yatsude.train.settings import OptimizerSettings
from yatsude.train.sharded import ShardedOptimizer
from yatsude.train.weights import Weights
from yatsude.train.workers import Workers

LAYOUTS = {
    "dp2": {"dp": 2},
    "dp2 tp2 ep4": {"dp": 2, "tp": 2, "ep": 4},
    "pp2 replicas2 dp2 ep2": {"pp": 2, "replicas": 2, "dp": 2, "ep": 2},
}
NORM = 3.0


def gradient(name, shape, step):
    generator = torch.Generator().manual_seed(sum(name.encode()) + 1000 * step)
    return torch.randn(shape, generator=generator)


def updated(settings, muon, states="fp32"):
    """Pieces of the weights after two updates by drawn gradients."""
    model = steps.model_of().float()
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    job = steps.job_of(model, Mesh(ParallelSettings(**settings)), dtype=torch.float32)
    optimizer = ShardedOptimizer(OptimizerSettings(muon=muon, states=states), job)
    for step in range(2):
        for _, weight in job.parameters():
            weight.grad = torch.zeros_like(weight)
        job.fill(
            lambda name, box, step=step: gradient(name, shapes[name], step)[box], beside=lambda weight: weight.grad
        )
        optimizer.step(0.5, NORM)
    return [(name, shape, box, numbers.numpy()) for name, shape, box, numbers in job.pieces()]


def whole(ranks):
    found = {}
    for name, shape, box, numbers in (piece for pieces in ranks for piece in pieces):
        found.setdefault(name, torch.full(shape, torch.nan))[box] = torch.from_numpy(numbers)
    return found


@pytest.mark.parametrize("muon", [False, True])
def test_every_layout_updates_alike(muon):
    alone = whole(run(1, updated, {}, muon))
    for settings in LAYOUTS.values():
        together = whole(run(ParallelSettings(**settings).ranks, updated, settings, muon))
        assert alone.keys() == together.keys()
        assert all(torch.equal(alone[name], together[name]) for name in alone)


@pytest.mark.parametrize("muon", [False, True])
def test_narrow_moments_move_weights_almost_alike(muon):
    wide, narrow = (whole(run(1, updated, {}, muon, states)) for states in ("fp32", "bf16"))
    layout = LAYOUTS["dp2 tp2 ep4"]
    cut = whole(run(ParallelSettings(**layout).ranks, updated, layout, muon, "bf16"))
    start = steps.model_of().float().state_dict()
    for name, weight in wide.items():
        moved = (weight - start[name]).norm()
        assert (narrow[name] - weight).norm() < 0.01 * moved
        assert torch.equal(narrow[name], cut[name])
    assert any(not torch.equal(narrow[name], wide[name]) for name in wide)


def test_narrow_moments_that_would_stand_still_are_refused():
    with pytest.raises(RecipeError, match=r"averages that move by 0\.001 a step"):
        OptimizerSettings(states="bf16", beta2=0.999)
    with pytest.raises(RecipeError, match="one process keeps its moments in float32"):
        Optimizer(OptimizerSettings(states="bf16"), Weights(steps.model_of().float(), torch.float32, 1))


@pytest.mark.parametrize("muon", [False, True])
def test_one_rank_updates_as_the_loop_of_one_process_does(muon):
    weights = Weights(steps.model_of().float(), torch.float32, 1)
    optimizer = Optimizer(OptimizerSettings(muon=muon), weights)
    for step in range(2):
        for name, view in weights.named(weights.gradient).items():
            view.copy_(gradient(name, view.shape, step))
        optimizer.step(0.5, NORM, Workers(1))
    found = whole(run(1, updated, {}, muon))
    for name, view in weights.named(weights.master).items():
        torch.testing.assert_close(found[name], view, rtol=1e-5, atol=1e-6)


def test_a_weight_of_one_rank_is_sharded_all_the_same():
    assert run(1, _kinds) == [True]


def _kinds():
    job = steps.job_of(steps.model_of(), Mesh(ParallelSettings()), dtype=torch.float32)
    return all(isinstance(weight, DTensor) for _, weight in job.parameters())
