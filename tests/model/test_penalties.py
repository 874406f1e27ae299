"""Auxiliary losses of a router against the formulas, written out."""

import pytest
import torch

from yatsude.model.router import Penalties, Router


def plain(router, x_BTD, *, sequence, z):
    """DeepSeek-V3, eq. 17 to 20, and ST-MoE, eq. 5, with loops."""
    config, total = router.config, torch.zeros((), dtype=x_BTD.dtype)
    for row in x_BTD:
        logits = row @ router.weight.T
        scores = logits.sigmoid() if config.scoring_func == "sigmoid" else logits.softmax(-1)
        chosen = scores.topk(config.num_experts_per_tok).indices
        for expert in range(config.n_routed_experts):
            fired = config.n_routed_experts / (config.num_experts_per_tok * len(row)) * (chosen == expert).sum()
            share = sum(s[expert] / s.sum() for s in scores) / len(row)
            total = total + sequence * fired * share / len(x_BTD)
        total = total + z * sum(torch.logsumexp(t, 0) ** 2 for t in logits) / len(row) / len(x_BTD)
    return total


@pytest.mark.parametrize("changes", [{}, {"model_type": "qwen3_moe", "n_routed_experts": 8, "num_experts_per_tok": 2}])
@pytest.mark.parametrize(("sequence", "z"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_gradients_are_those_of_the_formulas(small, changes, sequence, z):
    router = Router(small(**changes)).double()
    torch.nn.init.normal_(router.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 7, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(plain(router, x, sequence=sequence, z=z), router.weight)
    router.penalties = Penalties(sequence=sequence, z=z, sequences=3)
    out, _ = router(x)
    (out * 0).sum().backward()
    torch.testing.assert_close(router.weight.grad, expected)


def test_parts_of_a_step_add_up_to_the_whole(small):
    router = Router(small()).double()
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 5, 64, dtype=torch.float64)
    router.penalties = Penalties(sequence=1.0, z=1.0, sequences=4)
    grads = []
    for parts in ([x], [x[:1], x[1:]]):
        router.weight.grad = None
        for part in parts:
            (router(part)[0] * 0).sum().backward()
        grads.append(router.weight.grad)
    torch.testing.assert_close(*grads)


def test_looking_costs_nothing(small, monkeypatch):
    router = Router(small())
    torch.nn.init.normal_(router.weight)
    router.penalties = Penalties(sequence=1.0)
    monkeypatch.setattr(Router, "_penalty", None)  # asked for, it would fail
    with torch.no_grad():
        router(torch.randn(2, 5, 64))
