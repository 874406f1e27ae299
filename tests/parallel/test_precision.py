"""bfloat16 products over float32 masters and float32 sums, on ranks as in one process."""

import steps
import torch
from ranks import run

from yatsude.parallel.job import local
from yatsude.parallel.mesh import Mesh
from yatsude.spec.parallel import ParallelSettings


def gradients(settings, dtype):
    model = steps.model_of().float()
    job = steps.job_of(model, Mesh(ParallelSettings(**settings)), dtype=getattr(torch, dtype))
    inputs, targets, documents = steps.batch(0)
    loss = job.gradient(inputs, targets, documents, [])
    kinds = {(weight.dtype, local(weight.grad).dtype) for _, weight in job.parameters()}
    return loss, job.norm(), kinds


def test_masters_and_sums_are_wide():
    wide = run(1, gradients, {}, "float32")[0]
    for settings in ({}, {"dp": 2, "ep": 2}, {"pp": 2}, {"tp": 2}):
        for loss, norm, kinds in run(ParallelSettings(**settings).ranks, gradients, settings, "bfloat16"):
            assert kinds == {(torch.float32, torch.float32)}
            assert abs(loss - wide[0]) < 0.01 * wide[0]
            assert abs(norm - wide[1]) < 0.05 * wide[1]
