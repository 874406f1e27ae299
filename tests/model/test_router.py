import torch

from yatsude.model.router import Router


def router(small, **changes):
    layer = Router(small(**changes))
    torch.nn.init.normal_(layer.weight, std=0.2, generator=torch.Generator().manual_seed(0))
    return layer


def test_the_bias_chooses_and_does_not_weigh(small):
    layer, x = router(small, norm_topk_prob=False), torch.randn(50, 64)
    scores = (x @ layer.weight.T).sigmoid()
    layer.e_score_correction_bias[3] = 10  # now everybody goes to expert 3
    weights, chosen = layer(x)
    assert (chosen == 3).any(-1).all()
    torch.testing.assert_close(weights, scores.gather(1, chosen))


def test_the_bias_has_no_gradient(small):
    layer = router(small)
    weights, _ = layer(torch.randn(5, 64))
    assert not layer.e_score_correction_bias.requires_grad
    weights[:, 0].sum().backward()
    assert layer.weight.grad.count_nonzero() > 0


def test_weights_sum_to_the_scaling_factor(small):
    weights, chosen = router(small, num_experts_per_tok=3, routed_scaling_factor=2.5)(torch.randn(20, 64))
    torch.testing.assert_close(weights.sum(-1), torch.full((20,), 2.5))
    assert all(len(set(row)) == 3 for row in chosen.tolist())


def test_an_even_shift_of_the_bias_changes_nothing(small):
    layer, x = router(small), torch.randn(20, 64)
    before = layer(x)[1].sort().values
    layer.e_score_correction_bias += 0.5
    assert torch.equal(layer(x)[1].sort().values, before)


def test_the_load_counts_choices(small):
    layer = router(small)
    chosen = torch.cat([layer(torch.randn(n, 64))[1] for n in (7, 20)])
    assert torch.equal(layer.load, torch.bincount(chosen.flatten(), minlength=8))


def test_scores_of_bfloat16_are_float32(small):
    layer = router(small).bfloat16()
    layer.e_score_correction_bias = torch.zeros(8)
    x = torch.randn(9, 64).bfloat16()
    weights, chosen = layer(x)
    scores = (x.float() @ layer.weight.float().T).sigmoid().gather(1, chosen)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, scores / scores.sum(-1, keepdim=True))
