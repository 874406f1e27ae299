"""A job of one rank on a GPU takes the gradient that one on a CPU takes."""

import pytest
import torch
from steps import batch, model_of

from yatsude.parallel.job import Job
from yatsude.parallel.mesh import Mesh
from yatsude.spec.parallel import ParallelSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


def gradient(backend, tmp_path, dtype):
    store = torch.distributed.FileStore(str(tmp_path / backend.partition(":")[0]), 1)
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        model = model_of().float()
        torch.nn.init.normal_(model.lm_head.weight, std=0.2, generator=torch.Generator().manual_seed(0))
        numbers = model.state_dict()
        job = Job(model.config, Mesh(ParallelSettings()), sequences=32, length=16, dtype=dtype)
        job.allocate()
        job.fill(lambda name, box: numbers[name][box])
        job.fill_biases(lambda name, box: numbers[name][box])
        return job.gradient(*batch(0), []), job.norm()
    finally:
        torch.distributed.destroy_process_group()


def test_a_gpu_takes_the_same_gradient(tmp_path):
    cpu = gradient("gloo", tmp_path, torch.float32)
    gpu = gradient("cpu:gloo,cuda:nccl", tmp_path, torch.float32)
    assert gpu == pytest.approx(cpu, rel=1e-3)
