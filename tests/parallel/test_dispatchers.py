"""Rows on their way to experts: what is computed meanwhile, and another library that carries them."""

import importlib.metadata
import math

import dispatchers
import pytest
import steps
import torch
from ranks import run

from yatsude.errors import MachineError, RecipeError
from yatsude.parallel import deepep
from yatsude.spec.parallel import ParallelSettings


def between(names, begin, end, occurrence):
    """What comes between the begin of an exchange and its end."""
    places = [number for number, name in enumerate(names) if name == begin]
    first = places[occurrence]
    return names[first : names.index(end, first)]


def test_the_shared_expert_is_computed_while_rows_travel():
    for forward, backward, width in run(2, dispatchers.order):
        meanwhile = between(forward, "all_to_all_single", "wait_tensor", 0)
        assert f"mm {width}" in meanwhile
        meanwhile = between(backward, "all_to_all_single", "wait_tensor", 1)  # the first is of the way back
        assert sum(name.startswith("mm") for name in meanwhile) == 4  # of two weights and what goes into each


AGAIN = {"dp": 2, "ep": 2, "recompute": "full"}
SPLIT = {"pp": 2, "dp": 2, "ep": 2, "schedule": "dualpipev", "stages_per_rank": 2}


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        pytest.param(AGAIN, {"num_nextn_predict_layers": 1}, id="computed again"),
        pytest.param(SPLIT, {}, id="split backward", marks=pytest.mark.soak),
    ],
)
def test_a_library_that_carries_rows_changes_nothing(settings, changes):
    ranks = math.prod(settings.get(axis, 1) for axis in ("dp", "pp"))
    truth = steps.alone(**changes)
    for rank in run(ranks, dispatchers.by_library, settings, changes):
        for (loss, norm, _), (loss_1, norm_1, _) in zip(rank, truth, strict=True):
            assert math.isclose(loss, loss_1, rel_tol=1e-10)
            assert math.isclose(norm, norm_1, rel_tol=1e-9)


def test_a_job_that_the_library_could_not_carry_is_refused(monkeypatch):
    with pytest.raises(RecipeError, match=r"with parallel.ep = 1 no rows travel"):
        ParallelSettings(dp=2, dispatch="deepep")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match=r"for NVIDIA GPUs, and there is none; choose 'all-to-all'"):
        deepep.needed()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(MachineError, match=r"for bf16, not for torch.float32"):
        deepep.needed(torch.float32)
    with pytest.raises(MachineError, match=r"deep_ep cannot be loaded .*install it"):
        deepep.needed()


def test_the_library_announces_itself(monkeypatch):
    unused, used = (ParallelSettings(dp=2, ep=2, dispatch=how) for how in ("all-to-all", "deepep"))
    assert deepep.announced(used, "cuda") is None
    monkeypatch.setattr(importlib.metadata, "version", {"deep_ep": "2.0"}.__getitem__)
    assert deepep.announced(used, "cuda") == "rows travel to their experts by DeepEP 2.0"
    assert "parallel.dispatch = 'deepep' lets" in deepep.announced(unused, "cuda")
    assert deepep.announced(unused, "cpu") is None
    assert deepep.announced(ParallelSettings(dp=2), "cuda") is None
