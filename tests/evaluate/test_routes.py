import numpy as np
import pytest
import torch

from yatsude.evaluate.routes import Routes, follow, units
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.presets import preset


@pytest.fixture(scope="module")
def model():
    found = Transformer(preset("pico", vocab_size=64, num_hidden_layers=3))
    initialise(found, 0)
    return found.eval()


def documents(*sizes, first=1):
    """Documents of so many tokens, each with a separator (0) in front and behind; tokens name their document."""
    return [np.array([0] + [first + n] * size + [0]) for n, size in enumerate(sizes)]


def no_style(_):
    return None


def test_a_long_document_gives_its_beginning_and_short_ones_are_read_together():
    found = units({"law": documents(99, 99), "talk": documents(3, 3, 3, 3)}, no_style, window=8, tokens=32)
    assert [(unit.kind, unit.size) for unit in found] == [("law", 8), ("law", 8), ("talk", 8), ("talk", 8)]
    assert [text.tolist() for text in found[0].texts] == [[0, 1, 1, 1, 1, 1, 1, 1]]
    assert [text.tolist() for text in found[2].texts] == [[0, 1, 1, 1], [0, 2, 2, 2]]


def test_a_unit_has_one_style_and_a_document_is_in_one_unit():
    style = {1: "polite", 2: "plain", 3: "polite", 4: "plain", 5: "polite"}
    read = units({"talk": documents(3, 3, 3, 3, 3)}, lambda text: style[text[1]], window=8, tokens=1000)
    found = [(unit.style, [int(text[1]) for text in unit.texts]) for unit in read]
    assert found == [("polite", [1, 3]), ("plain", [2, 4]), ("polite", [5])]  # half a window is enough for a unit


def test_a_rest_that_is_too_short_is_left_out_unless_there_is_nothing_else():
    assert [unit.size for unit in units({"talk": documents(7, 2)}, no_style, window=8, tokens=1000)] == [8]
    assert [unit.size for unit in units({"talk": documents(2)}, no_style, window=8, tokens=1000)] == [3]
    assert units({"talk": []}, no_style, window=8, tokens=1000) == []


def test_kinds_share_the_tokens_evenly():
    found = units({"law": documents(99, 99, 99), "talk": documents(*[1] * 99)}, no_style, window=8, tokens=40)
    assert [sum(unit.size for unit in found if unit.kind == kind) for kind in ("law", "talk")] == [20, 20]


def test_counts_by_hand():
    routes = Routes(
        tokens_N=np.array([5, 6, 7]),
        units_N=np.array([0, 0, 2]),
        chosen_LNK=np.array([[[0, 1], [1, 2], [0, 2]], [[2, 1], [2, 1], [2, 1]]]),
        experts=3,
        biases=[None, None],
    )
    assert routes.counts(3).tolist() == [[[1, 2, 1], [0, 2, 2]], [[0, 0, 0], [0, 0, 0]], [[1, 0, 1], [0, 1, 1]]]


def test_counts_of_some_tokens_apart():
    routes = Routes(np.array([5, 6, 5, 7]), np.array([0, 0, 1, 1]), np.array([[[0], [1], [1], [0]]]), 2, [None])
    (counts,) = routes.token_counts(2, np.array([5, 7]))
    assert counts.tolist() == [[[1, 0], [0, 0]], [[0, 1], [1, 0]]]


def test_every_token_of_every_unit_is_followed_and_no_padding(model):
    read = units({"law": documents(99, 5), "talk": documents(3, 3, 2, first=9)}, no_style, window=16, tokens=44)
    routes = follow(model, read)
    assert routes.tokens_N.tolist() == [int(token) for unit in read for text in unit.texts for token in text]
    assert routes.chosen_LNK.shape == (2, sum(unit.size for unit in read), 2)
    counts = routes.counts(len(read))
    assert counts.shape == (len(read), 2, 8)
    for number, unit in enumerate(read):
        assert (counts[number].sum(-1) == 2 * unit.size).all()
    assert not any(router._forward_hooks for router in model.routers)


def test_a_text_goes_the_same_way_whatever_it_is_read_with(model):
    texts = documents(9, 4, 6)
    together = follow(model, units({"talk": texts}, no_style, window=64, tokens=1000))
    alone = [follow(model, units({"talk": [text]}, no_style, window=64, tokens=1000)) for text in texts]
    apart = np.concatenate([routes.chosen_LNK for routes in alone], axis=1)
    assert (np.sort(together.chosen_LNK, -1) == np.sort(apart, -1)).all()


def test_a_model_without_experts_and_a_router_that_is_not_asked():
    dense = Transformer(preset("pico", vocab_size=64, num_hidden_layers=1))
    initialise(dense, 0)
    read = units({"talk": documents(9)}, no_style, window=16, tokens=16)
    routes = follow(dense, read)
    assert routes.counts(1).shape == (1, 0, 8)
    dense.spare = Transformer(preset("pico", vocab_size=64, num_hidden_layers=2)).layers[1]
    assert len(dense.routers) == 1
    assert follow(dense, read).chosen_LNK.shape[0] == 0


def test_a_router_without_a_bias(model):
    read = units({"talk": documents(9)}, no_style, window=16, tokens=16)
    with torch.no_grad():
        model.routers[0].e_score_correction_bias[3] = 0.5
    assert follow(model, read).biases == [0.5, 0.0]
    model.routers[0].e_score_correction_bias[3] = 0.0
