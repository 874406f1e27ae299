import pytest
import torch

from yatsude.engine.cache import STEP, Memory
from yatsude.engine.runner import Runner


def memory(config, rows=4, tokens=1000):
    return Memory(config, rows=rows, tokens=tokens, dtype=torch.float64, device=torch.device("cpu"))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("piece", [1, 3, 40])
def test_logits_through_the_cache_equal_those_without(make_model, dtype, tolerance, piece):
    model = make_model(dtype)
    tokens = torch.randint(6, 300, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model.logits(model(tokens))
        runner = Runner(model, max_rows=1, context=128, prefill_tokens=64)
        parts = [runner.forward(part.tolist(), 0) for part in tokens.split(piece, 1)]
        got = model.logits(torch.cat(parts, 1))
    assert (got - expected).abs().max() < tolerance


def test_rows_of_unequal_length_do_not_see_each_other(make_model):
    model = make_model()
    lines = [[7, 8, 9, 10, 11, 12, 13], [20, 21], [30, 31, 32, 33]]
    runner = Runner(model, max_rows=3, context=128, prefill_tokens=64)
    with torch.inference_mode():
        for row, line in enumerate(lines):
            runner.forward([line[:-1]], row)
        together = runner.forward([[line[-1]] for line in lines], 0)
        for row, line in enumerate(lines):
            alone = model(torch.tensor([line]))[0, -1]
            assert (together[row, -1] - alone).abs().max() < 1e-9


def test_growth_keeps_what_is_held(config):
    cache = memory(config)
    cache.reserve(1, 10)
    cache.first_LBSX[:, 0, :10] = 3.0
    cache.reserve(3, STEP + 1)
    assert cache.first_LBSX.shape[1:3] == (3, 2 * STEP)
    assert (cache.first_LBSX[:, 0, :10] == 3.0).all()
    cache.reserve(4, 1000)
    assert cache.first_LBSX.shape[1:3] == (4, 1000)
    held = cache.bytes
    cache.reserve(2, 5)
    assert cache.bytes == held


def test_a_row_moves_with_its_length(config):
    cache = memory(config)
    cache.reserve(2, 8)
    cache.first_LBSX[:, 1, :5], cache.lengths[1] = 2.0, 5
    cache.move(1, 0)
    assert cache.lengths[:2] == [5, 0]
    assert (cache.first_LBSX[:, 0, :5] == 2.0).all()
