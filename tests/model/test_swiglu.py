import torch
from torch.nn import functional

from yatsude.model.swiglu import SwiGLU, swiglu


def test_the_gradient_is_that_of_the_formula():
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(swiglu, torch.randn(3, 2, 10, dtype=torch.float64, requires_grad=True))


def test_gate_comes_first():
    x = torch.randn(4, 6)
    expected = functional.silu(x[:, :3]) * x[:, 3:]
    torch.testing.assert_close(swiglu(x), expected)
    torch.testing.assert_close(swiglu(x.requires_grad_()), expected)


def test_the_layer_is_down_of_gate_times_up():
    layer, x = SwiGLU(5, 3), torch.randn(2, 4, 5)
    gate, up = layer.gate_up_proj.weight.chunk(2)
    torch.testing.assert_close(layer(x), (functional.silu(x @ gate.T) * (x @ up.T)) @ layer.down_proj.weight.T)
