"""Products in FP8 beside the same products of numbers rounded to FP8, widened."""

import pytest
import torch
from torch import nn

from yatsude.model.block import Block
from yatsude.parallel import float8
from yatsude.spec.presets import preset


def rounded(x):
    numbers, scale = float8.rows(x)
    return numbers.float() * scale


def close(found, truth):
    return (found.float() - truth).norm() < 0.005 * truth.norm()  # bf16 results


def test_a_product_is_that_of_rounded_numbers():
    torch.manual_seed(0)
    x, grad = torch.randn(40, 64).bfloat16().requires_grad_(), torch.randn(40, 48).bfloat16()
    weight = (torch.randn(48, 64) * torch.logspace(-3, 3, 48)[:, None]).bfloat16().requires_grad_()
    y = float8._Product.apply(x, weight)
    y.backward(grad)
    assert close(y, rounded(x) @ rounded(weight).T)
    assert close(x.grad, rounded(grad) @ rounded(weight.t()).T)
    assert close(weight.grad, grad.float().T @ x.float())
    assert (y.float() - x.float() @ weight.float().T).norm() < 0.05 * y.float().norm()


def test_a_grouped_product_is_one_of_each_expert():
    torch.manual_seed(0)
    counts = torch.tensor([16, 0, 24])
    x, weight = torch.randn(40, 64).bfloat16().requires_grad_(), torch.randn(3, 48, 64).bfloat16().requires_grad_()
    y = float8._grouped(x, weight, counts)
    y.sum().backward()
    parts = [float8._scaled(a, w) for a, w in zip(x.split(counts.tolist()), weight, strict=True) if len(a)]
    assert torch.equal(y, torch.cat(parts))
    assert weight.grad[1].abs().sum() == 0
    assert close(weight.grad[0], torch.ones(16, 48).T @ x[:16].float())


@pytest.mark.parametrize("layer", [0, 1], ids=["dense", "mixture"])
def test_a_layer_computes_nearly_the_same(layer):
    torch.manual_seed(0)
    config = preset("nano", q_lora_rank=64)
    block = Block(config, layer).bfloat16()
    for name, parameter in block.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        assert parameter.ndim > 1 or "norm" in name
    x = torch.randn(2, 32, config.hidden_size).bfloat16()
    turns = torch.polar(torch.ones(1, 32, config.rotary_dim // 2), torch.rand(1, 32, config.rotary_dim // 2))
    plain = block.self_attn(x, turns, None), block.mlp(x)
    float8.in_float8(block)
    narrow = block.self_attn(x, turns, None), block.mlp(x)
    for found, truth in zip(narrow, plain, strict=True):
        assert 0.01 < (found - truth).float().norm() / truth.float().norm() < 0.1, "it takes part, and little is lost"
