import pytest
import torch

from yatsude.model.native import library
from yatsude.train.weights import Weights, collect_into

MODELS = {"plain": {}, "tied": {"tie_word_embeddings": True}, "low-rank queries": {"q_lora_rank": 8}}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request, build):
    return build(**request.param)


def test_slices_hold_every_parameter_exactly_once(model):
    weights = Weights(model, torch.float32, 1)
    parameters = dict(model.named_parameters())
    names = [name for part in weights.slices for name in part.names]
    assert sorted(names) == sorted(parameters)
    taken = torch.zeros(len(weights.master), dtype=torch.int64)
    for part in weights.slices:
        assert part.of(taken).shape == (len(part.names), *part.shape)
        part.of(taken).add_(1)
        assert all(parameters[name].shape == part.shape for name in part.names)
    assert taken.max() == 1
    assert taken.sum() == sum(p.numel() for p in parameters.values())


@pytest.mark.parametrize("workers", [1, 2, 3, 50])
def test_shares_hold_every_parameter_once_and_weigh_about_the_same(build, workers):
    weights = Weights(build(num_hidden_layers=4), torch.float32, workers)
    pieces = [piece for share in weights.shares for piece in share]
    names = sorted(name for piece in pieces for name in piece.names)
    assert names == sorted(name for part in weights.slices for name in part.names)
    places = {name: view.data_ptr() for name, view in weights.named(weights.master).items()}
    for piece in pieces:
        views = zip(piece.of(weights.master), piece.names, strict=True)
        assert all(view.data_ptr() == places[name] and view.shape == piece.shape for view, name in views)
    sizes = [sum(piece.stop - piece.start for piece in share) for share in weights.shares]
    largest = max(piece.stop - piece.start for piece in pieces)
    assert len(sizes) == workers
    assert max(sizes) - min(sizes) <= largest


def test_kinds_follow_what_a_parameter_is(build):
    kinds = {name: part.kind for part in Weights(build(), torch.float32, 1).slices for name in part.names}
    assert kinds["embed_tokens.weight"] == kinds["lm_head.weight"] == "embedding"
    assert kinds["layers.1.mlp.gate.weight"] == "router"
    assert kinds["norm.weight"] == kinds["layers.0.self_attn.kv_a_layernorm.weight"] == "vector"
    assert kinds["layers.1.mlp.experts.gate_up_proj"] == kinds["layers.0.self_attn.o_proj.weight"] == "matrix"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replicas_are_views_of_one_copy_with_gradients_of_their_own(model, dtype):
    weights = Weights(model, dtype, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.arange(12).view(2, 6)
    one, other = weights.replicas
    with torch.no_grad():
        weights.master.mul_(0.5)
    weights.publish(weights.slices)
    for name, parameter in one.named_parameters():
        assert parameter.dtype == dtype
        assert torch.equal(parameter, (before[name] * 0.5).to(dtype))
        assert parameter.data_ptr() == dict(other.named_parameters())[name].data_ptr()
    assert torch.equal(one(ids), other(ids))
    one(ids).sum().backward()
    assert all(p.grad.count_nonzero() == 0 for p in other.parameters())
    assert any(p.grad.count_nonzero() for p in one.parameters())


def test_collect_adds_the_workers_up_and_clears_them(model):
    weights = Weights(model, torch.float32, 3)
    parts = [{name: torch.randn_like(p) for name, p in model.named_parameters()} for _ in weights.replicas]
    for replica, part in zip(weights.replicas, parts, strict=True):
        for name, parameter in replica.named_parameters():
            parameter.grad += part[name]
    squares = sum(weights.collect(pieces) for pieces in weights.shares)
    assert squares == pytest.approx(float(weights.gradient.square().sum()), rel=1e-5)
    total = weights.named(weights.gradient)
    for name in total:
        assert torch.equal(total[name], parts[0][name] + parts[1][name] + parts[2][name])
    assert weights.collect(weights.slices) == 0


def test_the_full_model_has_the_masters_precision_and_lives_by_itself(model):
    weights = Weights(model, torch.bfloat16, 1)
    weights.replicas[0].routers[0].e_score_correction_bias += 0.125
    full = weights.full()
    for name, parameter in full.named_parameters():
        assert torch.equal(parameter, dict(model.named_parameters())[name])
        assert parameter.grad is None
    assert torch.equal(full.routers[0].e_score_correction_bias, torch.full((8,), 0.125))
    if model.config.tie_word_embeddings:
        assert full.lm_head.weight is full.embed_tokens.weight
    with torch.no_grad():
        weights.master.zero_()
    assert full.embed_tokens.weight.count_nonzero()


def test_biases_are_shared_by_the_replicas_and_stay_float32(build):
    weights = Weights(build(), torch.bfloat16, 2)
    one, other = (replica.routers[0] for replica in weights.replicas)
    one.e_score_correction_bias += 1e-4
    assert other.e_score_correction_bias.dtype == torch.float32
    assert torch.equal(other.e_score_correction_bias, torch.full((8,), 1e-4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", [1, 4096, 10_001])
def test_collecting_compiled_is_collecting_plainly(monkeypatch, dtype, size):
    rows = torch.randn(3, size + 31, generator=torch.Generator().manual_seed(0)).to(dtype)

    def collected():
        gradients, total = rows.clone(), torch.full((size,), 7.0)
        squares = collect_into(total, gradients[:, :size])
        assert not gradients[:, :size].any()
        torch.testing.assert_close(gradients[:, size:], rows[:, size:], rtol=0, atol=0)
        return total, squares

    compiled, compiled_squares = collected()
    monkeypatch.setattr(library, "usable", lambda *_: False)
    plain, plain_squares = collected()
    torch.testing.assert_close(compiled, plain, rtol=0, atol=0)
    assert compiled_squares == pytest.approx(plain_squares, rel=1e-5)
