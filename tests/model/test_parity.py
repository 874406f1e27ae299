"""Equal to transformers' DeepseekV3ForCausalLM on the same weights."""

import pytest
import torch

from yatsude.model import precision
from yatsude.model.loss import cross_entropy
from yatsude.spec.counts import count
from yatsude.spec.presets import PRESETS

transformers = pytest.importorskip("transformers")

VARIANTS = {
    "plain": {},
    "low-rank queries": {"q_lora_rank": 24},
    "tied": {"tie_word_embeddings": True},
    "all dense": {"first_k_dense_replace": 3},
    "all mixtures": {"first_k_dense_replace": 0},
    "many experts": {"n_routed_experts": 32, "num_experts_per_tok": 6, "n_shared_experts": 2},
    "scaled, not normalised": {"norm_topk_prob": False, "routed_scaling_factor": 2.5},
    "odd widths": {"moe_intermediate_size": 30, "hidden_size": 60, "rope_theta": 500.0},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def pair(request, build, peer_of):
    model = build(**request.param)
    return model, peer_of(model)


def tokens(seed=0):
    return torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(seed))


def fp32_islands(monkeypatch):
    """transformers goes down to float32 in norms, router and softmax even in a float64 model."""
    monkeypatch.setattr(precision, "wide", lambda x: x.float())


@torch.no_grad()
def test_logits_equal_in_float64(pair, monkeypatch):
    fp32_islands(monkeypatch)
    model, peer = (module.double() for module in pair)
    ours, theirs = model.logits(model(tokens())), peer(tokens()).logits
    assert theirs.abs().max() > 0.5
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@torch.no_grad()
def test_logits_equal_in_float32_where_the_choice_is_clear(pair):
    model, peer = pair
    margins = []
    for router in model.routers:
        router.register_forward_hook(lambda module, args, out: margins.append(margin(module, args[0])))
    ours, theirs = model.logits(model(tokens())), peer(tokens()).logits
    clear = torch.stack(margins).amin(0).view(2, 40) > 1e-4 if margins else torch.ones(2, 40, dtype=torch.bool)
    clear = clear.long().cummin(1).values.bool()  # a token that may differ is seen by all that follow it
    assert clear.float().mean() > 0.3
    torch.testing.assert_close(ours[clear], theirs[clear], rtol=0, atol=1e-5)


def margin(router, x):
    """How far the last chosen expert is from the first one left out, shape (N,)."""
    scores = (x @ router.weight.T).sigmoid() + router.e_score_correction_bias
    count = router.config.num_experts_per_tok
    ranked = scores.sort(-1, descending=True).values
    return ranked[:, count - 1] - ranked[:, count] if count < ranked.shape[1] else torch.ones(len(x))


def test_gradients_equal_in_float64(pair, as_peer):
    model, peer = (module.double() for module in pair)
    ids = tokens()
    targets = ids[:, 1:].flatten()
    loss = cross_entropy(model(ids)[:, :-1].flatten(0, 1), model.lm_head.weight, targets, 1 / len(targets))
    loss.backward()
    peer(ids, labels=ids).loss.backward()
    theirs = {name: parameter.grad for name, parameter in peer.named_parameters()}
    ours = as_peer(model, lambda tensor: tensor.grad if tensor.requires_grad else None)
    compared = 0
    for name, grad in ours.items():
        if grad is None:  # a buffer
            continue
        scale = theirs[name].abs().max()
        torch.testing.assert_close(grad, theirs[name], rtol=0, atol=2e-5 * scale.item(), msg=name)
        compared += 1
    assert compared == len(theirs)


@torch.no_grad()
def test_bfloat16_is_as_near_to_float32_as_transformers_is(build, peer_of):
    """With one expert in all there is no choice to flip, so that only rounding is left."""
    model = build(n_routed_experts=2, num_experts_per_tok=2)
    peer = peer_of(model)
    exact = peer(tokens()).logits
    rounded = peer.bfloat16()(tokens()).logits.float()
    ours = model.bfloat16()
    for router in ours.routers:
        router.e_score_correction_bias = router.e_score_correction_bias.float()
    error, peers = (ours.logits(ours(tokens())).float() - exact).norm(), (rounded - exact).norm()
    assert error < 1.25 * peers


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_as_many_parameters_as_in_transformers(name):
    from yatsude.spec.config import to_hf

    page = {key: value for key, value in to_hf(PRESETS[name]).items() if key != "torch_dtype"}
    with torch.device("meta"):
        peer = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**page))
    counts = count(PRESETS[name])
    assert sum(p.numel() for p in peer.parameters()) == counts.total
    assert sum(b.numel() for n, b in peer.named_buffers() if n.endswith("correction_bias")) == counts.biases
