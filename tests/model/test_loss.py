import math

import pytest
import torch
from torch.nn import functional

from yatsude.model import loss
from yatsude.model.loss import IGNORED, cross_entropy, token_losses


def case(tokens=11, width=5, vocabulary=13, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, dtype=dtype, generator=generator, requires_grad=True)
    head = torch.randn(vocabulary, width, dtype=dtype, generator=generator, requires_grad=True)
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    targets[::4] = IGNORED
    return hidden, head, targets


@pytest.fixture(params=[3, 512])
def chunk(request, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
def test_equal_to_the_library_with_its_gradients():
    hidden, head, targets = case()
    ours = cross_entropy(hidden, head, targets, 0.25)
    theirs = 0.25 * functional.cross_entropy(hidden @ head.T, targets, reduction="sum")
    torch.testing.assert_close(ours, theirs)
    for mine, yours in zip(
        torch.autograd.grad(3 * ours, (hidden, head)), torch.autograd.grad(3 * theirs, (hidden, head)), strict=True
    ):
        torch.testing.assert_close(mine, yours)


@pytest.mark.usefixtures("chunk")
def test_offsets_raise_all_scores_but_the_target_s():
    hidden, head, targets = case()
    offsets = torch.linspace(0, 3, 13, dtype=torch.float64)
    ours = cross_entropy(hidden, head, targets, 0.25, offsets)
    own = functional.one_hot(targets.clamp_min(0), 13)
    theirs = 0.25 * functional.cross_entropy(hidden @ head.T + offsets * (1 - own), targets, reduction="sum")
    torch.testing.assert_close(ours, theirs)
    for mine, yours in zip(
        torch.autograd.grad(ours, (hidden, head)), torch.autograd.grad(theirs, (hidden, head)), strict=True
    ):
        torch.testing.assert_close(mine, yours)


@pytest.mark.usefixtures("chunk")
def test_gradient_check():
    hidden, head, targets = case()
    assert torch.autograd.gradcheck(lambda h, w: cross_entropy(h, w, targets, 0.5), (hidden, head))


@pytest.mark.usefixtures("chunk")
def test_losses_of_single_tokens_add_up():
    hidden, head, targets = case(dtype=torch.float32)
    single = token_losses(hidden, head, targets)
    assert single.shape == targets.shape
    assert single[targets == IGNORED].count_nonzero() == 0
    torch.testing.assert_close(single.sum(), cross_entropy(hidden, head, targets, 1.0).detach(), rtol=1e-5, atol=0)


def test_a_zero_head_predicts_evenly():
    hidden, _, targets = case()
    counted = int((targets != IGNORED).sum())
    even = cross_entropy(hidden, torch.zeros(13, 5, dtype=torch.float64), targets, 1 / counted)
    assert even.item() == pytest.approx(math.log(13))


def test_no_counted_target_costs_nothing():
    hidden, head, targets = case()
    cost = cross_entropy(hidden, head, torch.full_like(targets, IGNORED), 1.0)
    cost.backward()
    assert cost.item() == hidden.grad.count_nonzero() == 0
