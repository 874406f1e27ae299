import dataclasses

import pytest

from yatsude.plan.job import Job
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset


@pytest.fixture(scope="session")
def v3():
    """DeepSeek-V3 without the layer that predicts further ahead, as it was dry-run."""
    return dataclasses.replace(preset("700b"), num_nextn_predict_layers=0)


@pytest.fixture
def large(v3):
    """The dry-run job: 2,048 ranks, 32 micro-batches of a sequence of 4,096, balanced routing."""
    return Job(config=v3, accelerator=accelerator("h100"), gpus=2048, batch=4096, imbalance=1.0)


@pytest.fixture(scope="session")
def cut():
    """Its layout."""
    return ParallelSettings(pp=16, dp=128, ep=64, micro_batches=32, recompute="full")
