"""bfloat16 products over float32 masters and float32 sums, on ranks as in one process."""

import pytest
import steps
import torch
from ranks import run

from yatsude.parallel.job import local
from yatsude.parallel.mesh import Mesh
from yatsude.spec.parallel import ParallelSettings


def gradients(settings, dtype, float8=False):
    model = steps.model_of().float()
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    mesh = Mesh(ParallelSettings(**settings))
    job = steps.job_of(model, mesh, dtype=getattr(torch, dtype), float8=float8)
    loss = job.gradient(*(part[job.rows] for part in steps.batch(0)), [])
    kinds = {(weight.dtype, local(weight.grad).dtype) for _, weight in job.parameters()}
    return loss, job.norm(), kinds


LAYOUTS = (
    {"recompute": "full"},
    {"dp": 2, "ep": 2},
    {"pp": 2, "schedule": "zbv", "stages_per_rank": 2},
    {"tp": 2, "recompute": "full"},
)


@pytest.mark.parametrize("float8", [False, True], ids=["bf16", "fp8"])
def test_masters_and_sums_are_wide(float8):
    (wide,), (alone,) = run(1, gradients, {}, "float32"), run(1, gradients, {}, "bfloat16", float8)
    assert 0 < abs(alone[0] - wide[0]) < 0.01 * wide[0]
    for settings in LAYOUTS[:-1] if float8 else LAYOUTS:  # rows that tensor parallelism cuts have other scales
        for loss, norm, kinds in run(ParallelSettings(**settings).ranks, gradients, settings, "bfloat16", float8):
            assert kinds == {(torch.float32, torch.float32)}
            assert loss == pytest.approx(alone[0], rel=5e-3)
            assert norm == pytest.approx(alone[1], rel=5e-2)
