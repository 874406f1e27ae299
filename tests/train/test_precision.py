import pytest
import torch

from yatsude.train import precision


@pytest.mark.parametrize(("wish", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_wish_is_granted(wish, dtype):
    assert precision.choose(wish) == (dtype, f"{wish}, as the recipe says")


@pytest.mark.parametrize("faster", [torch.bfloat16, torch.float32])
def test_the_faster_one_is_chosen_and_both_figures_are_told(monkeypatch, faster):
    monkeypatch.setattr(precision, "_giga_flops", lambda dtype: 400.0 if dtype == faster else 100.0)
    dtype, reason = precision.choose("auto")
    assert dtype == faster
    assert "400" in reason
    assert "100" in reason


def test_measuring_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    assert precision.choose("auto")[0] in (torch.bfloat16, torch.float32)
    assert torch.get_num_threads() == before
