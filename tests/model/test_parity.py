"""Equal to transformers' DeepseekV3ForCausalLM on the same weights."""

from collections import Counter

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from yatsude.model import precision
from yatsude.model.loss import cross_entropy
from yatsude.spec.counts import count
from yatsude.spec.hf import to_hf
from yatsude.spec.presets import PRESETS
from yatsude.spec.rope_scaling import RopeScaling

transformers = pytest.importorskip("transformers")

DRAWS = {
    "deepseek_v3": 40,
    "glm4_moe": 30,
    "qwen3_moe": 16,
    "mixtral": 10,
    "llama": 7,
    "mistral": 7,
    "qwen2": 7,
    "qwen3": 7,
}
LEAST = 5
SEEN = Counter()


def scaling(rope_type, **changes):
    return RopeScaling(rope_type=rope_type, factor=8.0, original_max_position_embeddings=16, **changes)


STRETCHED = {
    "none": None,
    "yarn": scaling("yarn"),
    "yarn as DeepSeek": scaling("yarn", mscale=1.0, mscale_all_dim=1.0),
    "yarn by hand": scaling("yarn", mscale=0.7, mscale_all_dim=1.2, beta_fast=4.0, truncate=False),
    "llama3": scaling("llama3"),
    "linear": scaling("linear"),
}
EVERY = {"tie_word_embeddings": [False, True], "rope_theta": [100.0, 5e5], "hidden_size": [64, 60]}
MIXTURE = {"n_routed_experts": [12, 16], "num_experts_per_tok": [2, 3], "moe_intermediate_size": [32, 30]}
DEEPSEEK = {
    "norm_topk_prob": [False, True],
    "routed_scaling_factor": [1.0, 2.5],
    "n_group": [1, 4],
    "topk_group": [1, 2],
    "n_shared_experts": [1, 2],
    "first_k_dense_replace": [0, 1, 2, 3],
}
GROUPED = {"head_dim": [16, 24], "num_key_value_heads": [1, 2, 4]}
OPTIONS = {
    "deepseek_v3": MIXTURE | DEEPSEEK | {"q_lora_rank": [None, 24], "rope_interleave": [False, True]},
    "glm4_moe": MIXTURE
    | DEEPSEEK
    | GROUPED
    | {"qk_norm": [False, True], "attention_bias": [False, True], "partial_rotary_factor": [0.5, 1.0]},
    "mixtral": MIXTURE | GROUPED,
    "qwen3_moe": MIXTURE | GROUPED | {"norm_topk_prob": [False, True], "first_k_dense_replace": [0, 1, 2]},
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
}


@st.composite
def configurations(draw, model_type):
    """A value for each option of a family."""
    choice = {name: draw(st.sampled_from(values)) for name, values in {**EVERY, **OPTIONS[model_type]}.items()}
    stretch = draw(st.sampled_from(sorted(STRETCHED)))
    if choice.get("topk_group", 1) > choice.get("n_group", 1):
        choice["topk_group"] = choice["n_group"]
    if model_type == "llama":
        choice["hidden_size"] = 64  # transformers wants a multiple of the heads there
    return {"model_type": model_type, "stretch": stretch, **choice}


def built(choice, build):
    changes = dict(choice)
    return build(rope_scaling=STRETCHED[changes.pop("stretch")], **changes)


def tokens(seed=0):
    return torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(seed))


def fp32_islands(monkeypatch):
    """transformers goes down to float32 in norms, router and softmax even in a float64 model."""
    monkeypatch.setattr(precision, "wide", lambda x: x.float())


def fp32_routers(peer):
    """DeepSeek's router is float32 in transformers too; those with softmax follow the model: here they follow ours."""
    for name, module in peer.named_modules():
        if name.endswith("mlp.gate"):
            module.float().register_forward_pre_hook(lambda module, args: (args[0].float(),))


@pytest.mark.parametrize("model_type", DRAWS)
def test_logits_and_gradients_equal(model_type, build, peer_of, as_peer):
    @settings(max_examples=DRAWS[model_type], deadline=None, derandomize=True, phases=[Phase.generate])
    @given(choice=configurations(model_type))
    def compare(choice):
        SEEN.update(choice.items())
        with pytest.MonkeyPatch.context() as patch:
            fp32_islands(patch)
            model, peer = (module.double() for module in pair(choice, build, peer_of))
            fp32_routers(peer)
            float64_logits_equal(model, peer)
            float64_gradients_equal(model, peer, as_peer)
        float32_logits_equal(*pair(choice, build, peer_of))

    compare()


def test_every_option_took_each_of_its_values_often_enough():
    if not SEEN:
        pytest.skip("the draws were not made in this run")
    wanted = {(name, value) for options in OPTIONS.values() for name, values in options.items() for value in values}
    wanted |= {("model_type", name) for name in OPTIONS} | {("stretch", name) for name in STRETCHED}
    rare = {option: SEEN[option] for option in wanted if SEEN[option] < LEAST}
    assert rare == {}, rare
    assert sum(count for (name, _), count in SEEN.items() if name == "model_type") >= 30


def pair(choice, build, peer_of):
    model = built(choice, build)
    return model, peer_of(model)


@torch.no_grad()
def float64_logits_equal(model, peer):
    ours, theirs = model.logits(model(tokens())), peer(tokens()).logits
    assert theirs.abs().max() > 0.5
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * theirs.abs().max().item())


@torch.no_grad()
def float32_logits_equal(model, peer):
    """Wherever the choice of experts is clear."""
    margins = []
    for router in model.routers:
        router.register_forward_hook(lambda module, args, out: margins.append(margin(module, args[0], out[1])))
    ours, theirs = model.logits(model(tokens())), peer(tokens()).logits
    clear = torch.stack(margins).amin(0).view(2, 40) > 1e-4 if margins else torch.ones(2, 40, dtype=torch.bool)
    clear = clear.long().cummin(1).values.bool()  # a token that may differ is seen by all that follow it
    torch.testing.assert_close(ours[clear], theirs[clear], rtol=0, atol=1e-5 * max(1, theirs.abs().max().item()))


def margin(router, x, chosen):
    """How far the last chosen expert is from the first one left out, groups included, shape (N,)."""
    logits = x.flatten(0, -2) @ router.weight.T
    scores = logits.sigmoid() if router.config.scoring_func == "sigmoid" else logits.softmax(-1)
    if router.e_score_correction_bias is not None:
        scores = scores + router.e_score_correction_bias
    groups, count = router.config.n_group, router.config.num_experts_per_tok
    gap = torch.ones(len(scores))
    if groups > 1:
        best = scores.unflatten(-1, (groups, -1)).topk(2, -1).values.sum(-1).sort(-1, descending=True).values
        if router.config.topk_group < groups:
            gap = best[:, router.config.topk_group - 1] - best[:, router.config.topk_group]
        scores = router._choice(logits.sigmoid())
    ranked = scores.sort(-1, descending=True).values
    return torch.minimum(gap, (ranked[:, count - 1] - ranked[:, count]).nan_to_num(1.0))


def float64_gradients_equal(model, peer, as_peer):
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
        torch.testing.assert_close(grad, theirs[name].double(), rtol=0, atol=1e-6 * scale.item(), msg=name)
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
    page = {key: value for key, value in to_hf(PRESETS[name]).items() if key != "torch_dtype"}
    with torch.device("meta"):
        peer = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**page))
    counts = count(PRESETS[name])
    assert sum(p.numel() for p in peer.parameters()) == counts.total
    biases = sum(b.numel() for n, b in peer.named_buffers() if n.endswith("correction_bias"))
    assert biases == counts.biases - PRESETS[name].num_nextn_predict_layers * PRESETS[name].n_routed_experts
