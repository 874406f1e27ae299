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


def test_a_run_keeps_what_was_measured_and_a_wish_leaves_no_note(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_giga_flops", lambda dtype: 4.0 if dtype == torch.bfloat16 else 1.0)
    assert precision.settled(tmp_path, "fp32")[0] == torch.float32
    assert precision.settled(tmp_path, "auto")[0] == torch.bfloat16
    monkeypatch.setattr(precision, "_giga_flops", lambda dtype: 1.0 if dtype == torch.bfloat16 else 4.0)
    precision.settled(tmp_path, "fp32")  # such a run may be refused, and what it wished for must not outlive it
    assert precision.settled(tmp_path, "auto") == (torch.bfloat16, "bf16, as this run began")
