"""A rank that is only played takes what a real one takes: parameters, states, arithmetic, exchanges, memory."""

import contextlib
import math

import pytest
from ranks import run

from yatsude.plan.job import Job
from yatsude.plan.memory import rank_memory
from yatsude.plan.step import flops
from yatsude.plan.traffic import traffic
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset
from yatsude.train import dryrun
from yatsude.train.dryrun import Task, stage_ranks
from yatsude.train.settings import LoopSettings, OptimizerSettings
from yatsude.train.tracker import Tracker

TWO = {"stages_per_rank": 2}
LAYOUTS = {
    "dp2 ep2": {"dp": 2, "ep": 2},
    "tp2, computed again": {"tp": 2, "recompute": "full"},
    "cp2 ep2": {"cp": 2, "ep": 2},
    "pp2 replicas2": {"pp": 2, "replicas": 2},
    "pp2 zbv": {"pp": 2, "schedule": "zbv", **TWO},
    "pp2 dp2 tp2 ep4": {"pp": 2, "dp": 2, "tp": 2, "ep": 4},
    "dp2 ep2, fp8": {"dp": 2, "ep": 2, "precision": "fp8"},
}


def task(precision="auto", kernels=False, **layout):
    config = preset("nano", num_hidden_layers=4, num_nextn_predict_layers=1, vocab_size=2048)
    train = LoopSettings(
        sequences_per_step=16, sequence_length=256, optimizer=OptimizerSettings(muon=False), precision=precision
    )
    return Task(config=config, train=train, layout=ParallelSettings(**layout), kernels=kernels)


def real(wanted):
    return dryrun.steps(wanted, Tracker(), contextlib.nullcontext())


SOAK = ("dp2 ep2", "cp2 ep2", "pp2 replicas2", "dp4 ep2", "cp2 replicas2")
CUT = {
    "dp4 ep2": {"dp": 4, "ep": 2},
    "tp2 dp2": {"tp": 2, "dp": 2},
    "pp2 dp2 tp2 ep4, computed again": {"pp": 2, "dp": 2, "tp": 2, "ep": 4, "recompute": "full"},
    "cp2 replicas2": {"cp": 2, "replicas": 2},
    "pp2 zbv, computed again": {"pp": 2, "schedule": "zbv", **TWO, "recompute": "full"},
}


def _mostly(layouts):
    """All layouts, some of them in the longer proofs alone."""
    return [pytest.param(name, marks=pytest.mark.soak if name in SOAK else ()) for name in layouts]


@pytest.mark.parametrize("name", _mostly(CUT))
def test_the_closed_form_counts_what_the_code_does(name):
    wanted = task(kernels=True, **CUT[name])
    job = Job(
        config=wanted.config,
        accelerator=accelerator("cpu"),
        gpus=wanted.layout.ranks,
        sequence=wanted.train.sequence_length,
        batch=wanted.train.sequences_per_step,
        imbalance=1.0,
    )
    for played in dryrun.dry_run(wanted, stage_ranks(wanted.layout)):
        stage = played.rank // (wanted.layout.replicas * wanted.layout.shard_ranks)
        memory = rank_memory(job, wanted.layout, stage)
        assert memory["weights"] / 4 == pytest.approx(played.parameters, rel=2e-3)
        assert flops(job, wanted.layout, stage) == pytest.approx(played.step.flops, rel=0.02)
        flows = traffic(job, wanted.layout, stage)
        for kind, (_, size) in played.step.exchanged.items():
            if size > 1e5:  # counts of routers, and a norm, are none of it
                assert sum(flow.bytes for flow in flows if flow.kind == kind) == pytest.approx(size, rel=0.02), kind


@pytest.mark.parametrize("name", _mostly(LAYOUTS))
def test_played_ranks_are_as_real_ones(name):
    wanted = task(**LAYOUTS[name])
    truth = run(wanted.layout.ranks, real, wanted)
    for played in dryrun.dry_run(wanted, stage_ranks(wanted.layout)):
        true = truth[played.rank]
        assert (played.parameters, played.optimizer) == (true.parameters, true.optimizer)
        assert played.step.flops == true.step.flops
        assert played.step.exchanged == true.step.exchanged
        assert math.isclose(played.step.steady, true.step.steady, rel_tol=1e-3)
        assert math.isclose(played.step.peak, true.step.peak, rel_tol=0.03)
