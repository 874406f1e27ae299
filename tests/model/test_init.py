import torch

from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer


def weights(config, seed):
    model = Transformer(config)
    torch.manual_seed(torch.seed() % 1000)  # whatever the global generator stands at
    initialise(model, seed)
    return dict(model.named_parameters())


def test_the_same_seed_gives_the_same_weights(small):
    one, same, other = (weights(small(), seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert differing == {name for name, weight in one.items() if weight.ndim > 1 and name != "lm_head.weight"}


def test_every_weight_is_filled_with_numbers_of_the_right_size(small):
    config = small(hidden_size=256, moe_intermediate_size=128)
    for name, weight in weights(config, 0).items():
        assert weight.isfinite().all(), name
        if name.startswith("embed_tokens"):
            assert abs(weight.std() / config.initializer_range - 1) < 0.1
        elif name.endswith("experts.gate_up_proj"):
            assert abs(weight.std() * 256**0.5 - 1) < 0.1
        elif name.endswith("experts.down_proj"):
            assert abs(weight.std() * (128 * 2 * config.num_hidden_layers) ** 0.5 - 1) < 0.1


@torch.no_grad()
def test_the_first_prediction_is_uniform(small):
    model = Transformer(small())
    initialise(model, 0)
    assert model.logits(model(torch.arange(10)[None])).count_nonzero() == 0


def test_a_tied_head_stays_tied(small):
    model = Transformer(small(tie_word_embeddings=True))
    initialise(model, 0)
    assert model.lm_head.weight is model.embed_tokens.weight
    assert model.lm_head.weight.count_nonzero() > 0
