import pytest
import torch

from yatsude.checkpoint import streamed
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.hf import InMemory, load
from yatsude.checkpoint.settings import UpcycleSettings
from yatsude.checkpoint.upcycle import Upcycled
from yatsude.checkpoint.verify import verify
from yatsude.checkpoint.write import Precision, write
from yatsude.errors import RecipeError
from yatsude.spec.stored import stored

TOKENS = torch.randint(300, (2, 24), generator=torch.Generator().manual_seed(0))
NO_EXPERTS = {"moe_intermediate_size": 0, "n_routed_experts": 0, "num_experts_per_tok": 0, "n_shared_experts": 0}
DENSE = {
    "llama": {},
    "mistral": {"num_key_value_heads": 1},
    "qwen2": {},
    "qwen3": {},
    "deepseek_v3": {"first_k_dense_replace": 3, **NO_EXPERTS},
    "own dense": {"model_type": "deepseek_v3", "first_k_dense_replace": 3, "routed_scaling_factor": 2.5},
}


@pytest.fixture
def dense(build):
    return lambda family: InMemory(build(**{"model_type": family, **DENSE[family]}))


def settings(**changes):
    return UpcycleSettings(**{"ratio": 0.0, **changes})


@pytest.mark.parametrize(
    ("family", "changes", "layout"),
    [
        ("llama", {}, "mixtral"),
        ("mistral", {"experts": 4, "experts_per_token": 3}, "mixtral"),
        ("qwen3", {}, "qwen3_moe"),
        ("qwen3", {"dense_layers": 1}, "qwen3_moe"),
        ("llama", {"shared": 1}, "glm4_moe"),
        ("qwen2", {"shared": 1}, "glm4_moe"),
        ("qwen3", {"shared": 1, "dense_layers": 2}, "glm4_moe"),
        ("deepseek_v3", {}, "deepseek_v3"),
        ("own dense", {}, "deepseek_v3"),
        ("deepseek_v3", {"shared": 1, "dense_layers": 1}, "deepseek_v3"),
    ],
)
def test_copies_compute_what_the_dense_model_does(dense, family, changes, layout):
    source = dense(family)
    mixture = Upcycled(source, settings(**changes))
    assert mixture.config.model_type == layout
    assert mixture.config.moe_layers == 3 - changes.get("dense_layers", 0)
    expected, found = streamed.logits(source, TOKENS), streamed.logits(mixture, TOKENS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert expected.abs().max() > 1


def test_all_slices_together_are_the_dense_layer_where_they_weigh_the_same(dense, monkeypatch):
    source = dense("llama")
    monkeypatch.setattr(Upcycled, "_router", lambda self, layer, rest: torch.zeros(4, 32))
    mixture = Upcycled(source, settings(slices=4, experts=4, experts_per_token=4))
    torch.testing.assert_close(streamed.logits(mixture, TOKENS), streamed.logits(source, TOKENS), rtol=0, atol=1e-5)


def test_shared_slices_and_routed_ones_make_up_the_layer(dense):
    source = dense("llama")
    mixture = Upcycled(source, settings(slices=4, shared=1, experts=6, experts_per_token=3))
    assert (mixture.config.n_shared_experts, mixture.config.moe_intermediate_size) == (1, 16)
    shared = mixture.read("model.layers.1.mlp.shared_experts.gate_proj.weight")
    gate = source.read("model.layers.1.mlp.gate_proj.weight")
    assert torch.equal(shared, gate[:16])
    for expert in range(6):
        part = mixture.read(f"model.layers.1.mlp.experts.{expert}.gate_proj.weight")
        first = 16 * (1 + expert % 3)
        assert torch.equal(part, gate[first : first + 16])
    down = mixture.read("model.layers.1.mlp.experts.0.down_proj.weight")
    torch.testing.assert_close(down, 3 * source.read("model.layers.1.mlp.down_proj.weight")[:, 16:32])


def test_drop_upcycling_draws_a_share_of_the_columns_anew(dense):
    """Of gate, up and down the same ones, another choice for each expert; mean and spread stay."""
    source = dense("llama")
    mixture = Upcycled(source, settings(ratio=0.5))
    changed = []
    for expert in range(8):
        same = None
        for word, dimension in (("w1", 1), ("w3", 1), ("w2", 0)):
            made = mixture.read(f"model.layers.2.block_sparse_moe.experts.{expert}.{word}.weight")
            names = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
            old = source.read(f"model.layers.2.mlp.{names[word]}.weight")
            kept = (made == old).all(dimension)
            assert kept.sum() == 32
            assert same is None or torch.equal(kept, same)
            same = kept
            fresh = made[~kept] if dimension else made[:, ~kept]
            assert abs(fresh.std() / old.std() - 1) < 0.15
            assert abs(fresh.mean() - old.mean()) < 0.2 * old.std()
        changed.append(tuple(same.tolist()))
    assert len(set(changed)) == 8


def test_the_same_seed_draws_the_same_and_another_does_not(dense):
    name = "model.layers.0.block_sparse_moe.experts.3.w1.weight"
    source = dense("llama")
    first, again, other = (Upcycled(source, settings(ratio=0.5, seed=seed)).read(name) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_mixture_is_written_and_read_back(dense, tmp_path):
    mixture = Upcycled(dense("qwen3"), settings(ratio=0.5))
    write(mixture, tmp_path, Precision(torch.bfloat16), 50_000)
    assert verify(tmp_path, mixture).tensor_difference == 0
    assert load(tmp_path).config == Folder(tmp_path).config == mixture.config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratio": 1.5}, r"ratio = 1\.5"),
        ({"experts": 0}, "experts = 0"),
        ({"slices": 3, "experts": 6}, "divisor of the width 64"),
        ({"slices": 4, "experts": 6}, "multiple of 4"),
        ({"slices": 4, "shared": 4}, "shared = 4"),
        ({"experts_per_token": 9}, "num_experts_per_tok = 9"),
        ({"model_type": "mixtral", "dense_layers": 1}, "upcycle.dense_layers = 1: in the layout mixtral"),
        ({"model_type": "mixtral", "shared": 1}, "n_shared_experts = 1"),
        ({"model_type": "qwen3_moe"}, "its qk_norm is True, the dense model's False"),
    ],
)
def test_what_cannot_be_cut_is_named(dense, changes, words):
    with pytest.raises(RecipeError, match=words):
        Upcycled(dense("llama"), settings(**changes))


def test_a_window_that_the_mixture_would_not_have_is_refused(build):
    with pytest.raises(RecipeError, match="its sliding_window is None, the dense model's 16"):
        Upcycled(InMemory(build(model_type="mistral", sliding_window=16)), settings(shared=1))


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_rows_are_those_of_the_whole(dense, ratio):
    source = Upcycled(dense("llama"), settings(ratio=ratio))
    for name, entry in stored(source.config).items():
        rows = (1, max(2, entry.shape[0] // 2))
        assert torch.equal(source.read(name, rows), source.read(name)[slice(*rows)]), name


def test_a_mixture_is_not_upcycled(model):
    with pytest.raises(RecipeError, match="2 mixtures already"):
        Upcycled(InMemory(model), settings())
