import pytest
import torch

from yatsude.model.norm import RMSNorm


def norm(width=7, eps=1e-6):
    layer = RMSNorm(width, eps).double()
    torch.nn.init.normal_(layer.weight)
    return layer


def test_the_gradient_is_that_of_the_formula():
    torch.manual_seed(0)
    layer, x = norm(), torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)

    def apply(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(apply, (x, layer.weight))


def test_with_and_without_gradients_the_result_is_the_same():
    layer, x = norm(), torch.randn(5, 7, dtype=torch.float64)
    formula = layer.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + layer.eps)
    torch.testing.assert_close(layer(x), formula)
    torch.testing.assert_close(layer(x.requires_grad_()), formula)


@pytest.mark.parametrize("grad", [False, True])
def test_bfloat16_is_computed_in_float32(grad):
    layer = RMSNorm(64, 1e-6).bfloat16()
    x = (300 * torch.randn(4, 64)).bfloat16().requires_grad_(grad)
    wide = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    assert torch.equal(layer(x), wide.bfloat16())
