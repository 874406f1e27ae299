import pytest
import torch

from yatsude.model.experts import Experts, grouped_product, grouped_product_reference

COUNTS = {
    "even": [8, 8, 8, 8],
    "uneven": [1, 30, 0, 3],
    "first empty": [0, 0, 5, 6],
    "last empty": [9, 2, 0, 0],
    "all in one": [0, 40, 0, 0],
}


def case(counts, dtype, inputs=32, outputs=48):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(counts), inputs, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(len(counts), outputs, inputs, generator=generator).to(dtype).requires_grad_()
    return x, weight, torch.tensor(counts)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_fast_product_equals_the_plain_one(counts, dtype, tolerance):
    x, weight, counts_E = case(counts, dtype)
    results = []
    for product in (grouped_product, grouped_product_reference):
        out = product(x, weight, counts_E)
        grads = torch.autograd.grad(out.float().square().sum(), (x, weight))
        results.append((out, *grads))
    for fast, plain in zip(*results, strict=True):
        assert fast.dtype == plain.dtype == dtype
        scale = plain.abs().max().item()
        torch.testing.assert_close(fast, plain, rtol=0, atol=tolerance * max(scale, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_experts_without_rows_have_gradients_of_zero(dtype):
    x, weight, counts_E = case([0, 11, 0, 5], dtype)
    grouped_product(x, weight, counts_E).square().sum().backward()
    assert weight.grad is not None
    assert weight.grad[0].count_nonzero() == weight.grad[2].count_nonzero() == 0
    assert weight.grad[1].count_nonzero() > 0


def test_no_rows_at_all():
    x, weight, counts_E = case([0, 0, 0], torch.float64)
    out = grouped_product(x, weight, counts_E)
    assert out.shape == (0, 48)
    out.sum().backward()
    assert weight.grad is not None
    assert weight.grad.count_nonzero() == 0


def test_widths_that_the_fast_product_cannot_take_go_the_plain_way():
    x, weight, counts_E = case([3, 4], torch.bfloat16, inputs=5, outputs=3)
    assert torch.equal(grouped_product(x, weight, counts_E), grouped_product_reference(x, weight, counts_E))


def test_gradient_in_float64(small):
    experts = Experts(small(hidden_size=6, moe_intermediate_size=4, n_routed_experts=3)).double()
    for weight in experts.parameters():
        torch.nn.init.normal_(weight)
    counts = torch.tensor([2, 0, 3])

    def apply(x, gate_up, down):
        weights = {"gate_up_proj": gate_up, "down_proj": down}
        return torch.func.functional_call(experts, weights, (x, counts))

    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(apply, (x, experts.gate_up_proj, experts.down_proj))


def test_each_expert_is_a_gated_layer_of_its_own(small):
    experts = Experts(small())
    for weight in experts.parameters():
        torch.nn.init.normal_(weight)
    x, out = torch.randn(4, 64), []
    for row, expert in zip(x, (0, 0, 3, 7), strict=True):
        gate, up = (experts.gate_up_proj[expert] @ row).chunk(2)
        out.append(experts.down_proj[expert] @ (torch.nn.functional.silu(gate) * up))
    counts = torch.tensor([2, 0, 0, 1, 0, 0, 0, 1])
    torch.testing.assert_close(experts(x, counts), torch.stack(out), rtol=1e-4, atol=1e-3)
