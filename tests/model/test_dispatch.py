import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude.model.dispatch import FEWEST, MULTIPLE, LocalDispatcher


def choices(tokens, experts, chosen, seed):
    generator = torch.Generator().manual_seed(seed)
    ranked = torch.rand(tokens, experts, generator=generator).argsort(-1)
    return ranked[:, :chosen]


def mixed(x, chosen, weights, experts, apply):
    """Tokens through their experts, by the dispatcher."""
    dispatcher = LocalDispatcher()
    rows, route = dispatcher.dispatch(x, weights, chosen, experts)
    parts = [apply(expert, part) for expert, part in enumerate(rows.split(route.counts_E.tolist()))]
    return dispatcher.combine(torch.cat(parts), route)


def by_hand(x, chosen, weights, apply):
    """The same, one token and one expert at a time."""
    return torch.stack(
        [
            sum(weights[n, k] * apply(int(chosen[n, k]), x[n : n + 1])[0] for k in range(chosen.shape[1]))
            for n in range(len(x))
        ]
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_equal_to_a_loop_over_tokens(tokens, experts, chosen, seed):
    chosen_NK = choices(tokens, experts, min(chosen, experts), seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 4, dtype=torch.float64, generator=generator)
    weights = torch.rand(chosen_NK.shape, dtype=torch.float64, generator=generator)

    def apply(expert, part):
        return (part * (expert + 1)).sin()

    torch.testing.assert_close(
        mixed(x, chosen_NK, weights, experts, apply), by_hand(x, chosen_NK, weights, apply), rtol=0, atol=1e-12
    )


def test_rows_lie_in_the_order_of_their_experts():
    chosen = choices(30, 5, 2, 0)
    rows, route = LocalDispatcher().dispatch(torch.arange(30.0)[:, None], torch.ones(chosen.shape), chosen, 5)
    for expert, part in enumerate(rows.split(route.counts_E.tolist())):
        assert part[:, 0].tolist() == [n for n in range(30) if expert in chosen[n]]


def test_many_rows_are_filled_up_to_a_multiple():
    tokens = 5 * FEWEST // 2 + 3
    chosen = choices(tokens, 5, 2, 0)
    rows, route = LocalDispatcher().dispatch(torch.arange(float(tokens))[:, None], torch.ones(chosen.shape), chosen, 5)
    assert len(rows) > 2 * tokens
    for expert, part in enumerate(rows.split(route.counts_E.tolist())):
        own = [n for n in range(tokens) if expert in chosen[n]]
        assert part[: len(own), 0].tolist() == own
        assert len(part) % MULTIPLE == 0
        assert len(part) - len(own) < MULTIPLE


def test_an_expert_without_tokens_has_no_rows_to_fill():
    chosen = torch.zeros(4 * FEWEST, 1, dtype=torch.int64)
    _, route = LocalDispatcher().dispatch(torch.rand(4 * FEWEST, 3), torch.ones(chosen.shape), chosen, 4)
    assert route.counts_E.tolist() == [4 * FEWEST, 0, 0, 0]


def test_filling_up_changes_neither_values_nor_gradients():
    tokens = 2 * FEWEST + 5
    chosen = choices(tokens, 4, 2, 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, 3, dtype=torch.float64, generator=generator).requires_grad_()
    weights = torch.rand(tokens, 2, dtype=torch.float64, generator=generator).requires_grad_()
    scales = torch.rand(4, dtype=torch.float64, generator=generator).requires_grad_()

    def apply(expert, part):
        return (part * scales[expert]).cos()  # not 0 where the row is 0

    inputs = (x, weights, scales)
    found, expected = mixed(x, chosen, weights, 4, apply), by_hand(x, chosen, weights, apply)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_gradients_of_both_ways():
    chosen = choices(6, 4, 2, 0)
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: mixed(x, chosen, w, 4, lambda e, part: part**2 * (e + 1)), (x, weights)
    )
