import dataclasses

import pytest
import torch

from yatsude.model.native import library
from yatsude.train.optimizer import COEFFICIENTS, Optimizer, orthogonalise
from yatsude.train.settings import OptimizerSettings
from yatsude.train.weights import Weights
from yatsude.train.workers import Workers

ADAMW = OptimizerSettings(muon=False, rate=2e-3, embedding_rate=5e-3, epsilon=1e-8, weight_decay=0.1, clip=1e9)
MUON = dataclasses.replace(ADAMW, muon=True, muon_rate=1e-2, weight_decay=0.0)

ONE = Workers(1)


def gradients(weights, seed):
    """Put a random gradient into the worker's buffer; it comes back by name."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, parameter in weights.replicas[0].named_parameters():
        parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))
        out[name] = parameter.grad.clone()
    weights.collect(weights.slices)
    return out


def kinds(weights):
    return {name: part.kind for part in weights.slices for name in part.names}


def test_adamw_on_slices_equals_the_library(build):
    model = build()
    weights = Weights(model, torch.float32, 1)
    ours, kind = Optimizer(ADAMW, weights), kinds(weights)
    groups = [
        {
            "params": [parameter],
            "lr": ADAMW.embedding_rate if kind[name] == "embedding" else ADAMW.rate,
            "weight_decay": ADAMW.weight_decay if kind[name] in ("matrix", "router") else 0.0,
        }
        for name, parameter in model.named_parameters()
    ]
    theirs = torch.optim.AdamW(groups, betas=(ADAMW.beta1, ADAMW.beta2), eps=ADAMW.epsilon)
    peaks = [group["lr"] for group in theirs.param_groups]
    for step in range(5):
        share = 1.0 - step / 5
        grads = gradients(weights, step)
        for name, parameter in model.named_parameters():
            parameter.grad = grads[name]
        for group, peak in zip(theirs.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        ours.step(share, 0.0, ONE)
        theirs.step()
    masters = weights.named(weights.master)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(masters[name], parameter.detach(), rtol=1e-5, atol=1e-7, msg=name)


def test_clipping_scales_a_long_gradient_to_the_limit(build):
    weights = Weights(build(), torch.float32, 1)
    for norm, expected in ((10.0, 0.5), (0.4, 0.4)):
        optimizer = Optimizer(dataclasses.replace(ADAMW, clip=0.5), weights)
        gradients(weights, 0)
        weights.gradient.mul_(norm / weights.gradient.norm())
        optimizer.step(1.0, norm, ONE)  # the first moment is a share of the gradient that was taken
        assert optimizer.first.norm().item() / (1 - ADAMW.beta1) == pytest.approx(expected, rel=1e-4)


def test_an_update_is_published_in_the_precision_of_the_products(build):
    weights = Weights(build(), torch.bfloat16, 1)
    optimizer = Optimizer(MUON, weights)
    gradients(weights, 0)
    optimizer.step(1.0, 0.0, ONE)
    masters = weights.named(weights.master)
    for name, parameter in weights.replicas[0].named_parameters():
        assert torch.equal(parameter, masters[name].bfloat16())


@pytest.mark.parametrize("shape", [(1, 64, 32), (3, 32, 64), (4, 48, 16)])
def test_singular_values_come_near_1(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    out = orthogonalise(matrices)
    assert out.shape == matrices.shape
    assert out.dtype == torch.float32
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    aligned = (out * (left @ right)).sum((-2, -1)) / (out.norm(dim=(-2, -1)) * (left @ right).norm(dim=(-2, -1)))
    assert aligned.min() > 0.97  # the same singular vectors


def test_the_polynomials_bring_what_they_promise_near_1():
    values = torch.linspace(0.03, 1, 2000, dtype=torch.float64)
    for a, b, c in COEFFICIENTS:
        values = a * values + b * values**3 + c * values**5
    assert float((values - 1).abs().max()) < 0.054


def test_scale_does_not_matter_and_zero_stays_zero():
    matrices = torch.randn(2, 16, 24)
    near = orthogonalise(matrices)
    for scale in (1e-4, 1e4):
        torch.testing.assert_close(orthogonalise(matrices * scale), near, rtol=0, atol=0.05)
    assert orthogonalise(torch.zeros(1, 4, 6)).count_nonzero() == 0


def test_muon_moves_every_matrix_against_its_gradient_by_the_same_size(build):
    """Gate and up lie in one tensor and are two matrices; each expert is its own."""
    weights = Weights(build(), torch.float32, 1)
    before = {name: value.clone() for name, value in weights.named(weights.master).items()}
    optimizer, kind = Optimizer(MUON, weights), kinds(weights)
    grads = gradients(weights, 0)
    optimizer.step(1.0, 0.0, ONE)
    after = weights.named(weights.master)
    for name in (name for name in kind if kind[name] == "matrix"):
        moved, grad = after[name] - before[name], grads[name]
        if "gate_up_proj" in name:
            moved, grad = (t.unflatten(-2, (2, -1)) for t in (moved, grad))
        moved, grad = (t.reshape(-1, *t.shape[-2:]) for t in (moved, grad))
        unit = MUON.muon_rate * 0.2 * max(moved.shape[-2:]) ** 0.5
        values = torch.linalg.svdvals(moved) / unit
        assert values.max() < 1.3, name
        assert values.median() > 0.6, name
        assert ((moved * grad).sum((-2, -1)) < 0).all(), name


def test_muon_decays_and_leaves_the_rest_to_adamw(build):
    settings = dataclasses.replace(MUON, weight_decay=0.5)
    weights = Weights(build(), torch.float32, 1)
    before, kind = weights.master.clone(), kinds(weights)
    other = Weights(build(), torch.float32, 1)
    for settings_of, w in ((settings, weights), (ADAMW, other)):
        gradients(w, 0)
        Optimizer(settings_of, w).step(1.0, 0.0, ONE)
    ours, adamw = weights.named(weights.master), other.named(other.master)
    for name in kind:
        assert torch.equal(ours[name], adamw[name]) == (kind[name] in ("vector", "embedding")), name
    weights.master.copy_(before)
    weights.gradient.zero_()
    Optimizer(settings, weights).step(1.0, 0.0, ONE)
    name = "layers.0.self_attn.o_proj.weight"
    torch.testing.assert_close(weights.named(weights.master)[name], weights.named(before)[name] * (1 - 0.5 * 1e-2))


def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened(build):
    straight, cut = Weights(build(), torch.float32, 1), Weights(build(), torch.float32, 1)
    optimizer = Optimizer(MUON, straight)
    first = Optimizer(MUON, cut)
    for step in range(2):
        for w, o in ((straight, optimizer), (cut, first)):
            gradients(w, step)
            o.step(0.5, 0.0, ONE)
    second = Optimizer(MUON, cut)
    for (_, _, ours), (_, _, theirs) in zip(second.moments(), first.moments(), strict=True):
        ours.copy_(theirs)
    second.steps = 2
    for w, o in ((straight, optimizer), (cut, second)):
        gradients(w, 7)
        o.step(0.5, 0.0, ONE)
    assert torch.equal(straight.master, cut.master)


@pytest.mark.parametrize("settings", [ADAMW, MUON], ids=["adamw", "muon"])
def test_workers_share_the_update_and_change_nothing(build, settings):
    masters = []
    for count in (1, 3):
        weights = Weights(build(), torch.float32, count)
        optimizer = Optimizer(dataclasses.replace(settings, clip=0.1), weights)
        with Workers(count) as workers:
            for step in range(3):
                gradients(weights, step)
                optimizer.step(1.0, float(weights.gradient.norm()), workers)
        masters.append(weights.master)
    torch.testing.assert_close(masters[0], masters[1], rtol=0, atol=2e-6 if settings is ADAMW else 2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_compiled_step_is_the_plain_one(build, monkeypatch, dtype):
    def stepped():
        weights = Weights(build(), dtype, 1)
        optimizer = Optimizer(dataclasses.replace(ADAMW, clip=0.5), weights)
        for step in range(3):
            gradients(weights, step)
            optimizer.step(1.0, 3.0, ONE)
        return weights.master, weights.compute, optimizer.first, optimizer.second

    compiled = stepped()
    monkeypatch.setattr(library, "usable", lambda *_: False)
    for one, other in zip(compiled, stepped(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5 if one.dtype == torch.float32 else 8e-3, atol=1e-6)
