import dataclasses

import pytest
import torch

from yatsude.errors import MachineError
from yatsude.plan.job import Job
from yatsude.plan.rates import Rates, rates
from yatsude.plan.step import step
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset
from yatsude.train import links
from yatsude.train.calibrate import _shapes, calibrate

CPU = accelerator("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rates_are_those_a_plan_takes(dtype):
    found = calibrate(preset("pico"), dtype, rounds=2)
    assert found.keys() < {field.name for field in dataclasses.fields(Rates)}
    assert all(1e-9 < value < 1e16 for value in found.values())
    assert found["launch"] < 1e-2 < found["matrix"]
    job = Job(config=preset("pico"), accelerator=CPU, gpus=1, sequence=64, batch=1)
    told = dataclasses.replace(job, measured=dataclasses.replace(rates(CPU), **found))
    assert step(told, ParallelSettings(micro_batches=1)).seconds > 0


@pytest.mark.parametrize("changes", [{}, {"model_type": "llama", "first_k_dense_replace": 2}])
def test_measuring_draws_no_number_that_a_run_would_have_had(changes):
    config = preset("pico", **changes)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    calibrate(config, rounds=1)
    assert torch.equal(torch.rand(3), expected)


def test_the_largest_shapes_are_cut_to_what_can_be_timed():
    """A layer of 671 B has 15 GB of experts."""
    shapes = _shapes(preset("700b"))
    assert {shape.groups > 1 for shape in shapes} == {True, False}
    for shape in shapes:
        assert shape.groups * shape.inner * shape.outer <= 2**28
        assert shape.flops <= 2**33
        assert shape.rows >= shape.groups


def test_processes_measure_their_link():
    found = links.between_processes(2)
    assert found.keys() == {"link", "latency"}
    assert 1e5 < found["link"] < 1e12
    assert 1e-6 < found["latency"] < 1


def test_processes_that_do_not_meet_are_an_error(monkeypatch):
    monkeypatch.setattr(links, "LIMIT_S", 0.01)
    with pytest.raises(MachineError, match="2 of 2 local processes did not get through to each other; try --ranks 1"):
        links.between_processes(2)
