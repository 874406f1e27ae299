import pytest
import torch

from yatsude.checkpoint import hf
from yatsude.evaluate.heldout import parts
from yatsude.evaluate.router import information, measure


def test_every_token_is_counted_once_and_no_padding(home):
    model = hf.load(home / "train" / "model", torch.float32).eval()
    kinds = parts(home / "tokenizer" / "held_out")
    found = measure(model, kinds, window=32, tokens=128)
    assert found.tokens == 2 * 64
    assert len(found.all) == len(model.routers) == len(found.information)
    assert all(sum(layer) == pytest.approx(8) for layer in found.all)
    assert [int(router.load.sum()) for router in model.routers] == [64 * 2] * len(found.all)  # of the last kind
    for layer, mean in enumerate(found.all):
        both = [found.kinds[kind][layer] for kind in found.kinds]
        assert mean == pytest.approx([sum(loads) / 2 for loads in zip(*both, strict=True)])
        assert found.busiest[layer] == pytest.approx(max(mean))


def test_less_text_than_a_window(home):
    model = hf.load(home / "train" / "model", torch.float32).eval()
    kinds = parts(home / "tokenizer" / "held_out", documents=1)
    size = len(next(iter(kinds["dialogue"].documents()))) - 1
    assert measure(model, kinds, window=512, tokens=10_000).tokens == size


def test_information_between_kind_and_expert():
    apart = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    alike = torch.tensor([[[0.3, 0.7]], [[0.3, 0.7]]])
    assert information(apart) == pytest.approx([1.0])
    assert information(alike) == pytest.approx([0.0])
