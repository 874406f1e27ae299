import dataclasses
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude.plan import screen
from yatsude.plan.bill import bill, gpus_for
from yatsude.plan.faults import Faults
from yatsude.plan.job import Job
from yatsude.plan.refuse import refusals
from yatsude.plan.search import evaluate, search, shortfall
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset


@pytest.fixture(scope="module")
def planned():
    """700b on 2,048 H100, and the CPU seconds that it took."""
    job = Job(config=preset("700b"), accelerator=accelerator("h100"), gpus=2048, batch=4096)
    start = time.process_time()
    return job, search(job), time.process_time() - start


def test_thousands_of_layouts_take_seconds(planned):
    _, found, seconds = planned
    assert found.tried > 10_000
    assert len(found.plans) > 5
    assert seconds < 10


def test_what_is_found_works_fits_and_is_in_order(planned):
    job, found, _ = planned
    for plan in found.plans:
        assert plan.layout.ranks == 2048
        assert list(refusals(job, plan.layout)) == []
        assert plan.bytes <= job.accelerator.memory
        assert evaluate(job, plan.layout).step == plan.step
    times = [plan.step.seconds for plan in found.plans]
    assert times == pytest.approx(sorted(times), rel=0.02)


def test_every_reason_has_its_equation(planned):
    _, found, _ = planned
    assert {"memory", "parallel.pp", "parallel.micro_batches"} <= set(found.refused)
    lines = screen.refused(found)
    assert all(" layouts: " in line and "=" in line for line in lines)
    assert any("pp x stages_per_rank = " in line for line in lines)
    assert any("pipeline rank" in line and "GiB" in line for line in lines)


def test_a_plan_is_a_page(planned):
    job, found, _ = planned
    best = found.plans[0]
    page = screen.plans(job, found.plans) + screen.memory(job, best) + screen.steps(best) + screen.flows(job, best)
    for word in ("tokens/s/GPU", "gathered weights", "bubble", "ep all-to-all", "shard reduce-scatter"):
        assert word in page


def test_what_does_not_fit_names_its_largest_terms():
    job = Job(config=preset("700b"), accelerator=accelerator("h100"), gpus=8, batch=8)
    found = search(job)
    assert found.plans == []
    assert set(found.refused) <= {"memory", "parallel.offload", "parallel.pp", "parallel.micro_batches"}
    assert "more than the 240 that its CPU" in found.refused["parallel.offload"].finding.message
    layout = ParallelSettings(dp=8, ep=8, micro_batches=1)
    plan = evaluate(job, layout)
    finding = shortfall(job, layout, plan.rank, plan.memory)
    assert finding.key == "memory"
    assert "h100 has 79" in finding.message
    assert "pipeline rank 0 needs" in finding.message


def test_context_ranks_are_tried_for_long_sequences_only():
    job = Job(config=preset("700b"), accelerator=accelerator("h200"), gpus=256, sequence=65536, batch=256)
    assert {plan.layout.cp for plan in search(job).plans} > {1}
    short = dataclasses.replace(job, sequence=4096)
    assert {plan.layout.cp for plan in search(short).plans} == {1}


def test_one_accelerator_has_one_layout():
    job = Job(config=preset("base"), accelerator=accelerator("h200"), gpus=1, batch=64, sequence=1024)
    (plan,) = search(job).plans
    assert plan.layout.ranks == 1
    assert plan.layout.stages_per_rank == 1


def test_a_bill_counts_failures_money_and_energy(planned):
    job, found, _ = planned
    faults = Faults(gpus=2048)
    told = bill(job, found.plans[0], 1e12, 400.0, faults)
    assert told.steps == -(-(10**12) // job.tokens)
    assert told.seconds > told.steps * found.plans[0].step.seconds
    assert told.yen == 400 * told.gpu_hours
    assert told.gpu_hours * 700 / 1e6 < told.megawatt_hours < 2 * told.gpu_hours * 700 / 1e6
    assert gpus_for(told.seconds / 86400, told) == pytest.approx(2048)
    assert bill(job, found.plans[0], 1e12, None, faults).yen is None


def job_of(layout, **changes):
    fields = {"config": preset("700b"), "accelerator": accelerator("h100"), "gpus": layout.ranks, "batch": 64}
    return Job(**(fields | changes))


@pytest.mark.parametrize(
    ("layout", "changes", "words"),
    [
        ({"dp": 4, "micro_batches": 1}, {"gpus": 8}, r"parallel.dp = 4: pp x .* = 1 x 1 x 4 x 1 x 1 = 4 ranks for 8"),
        ({"tp": 3}, {"sequence": 3}, r"parallel.tp = 3: num_attention_heads = 128 leaves 2; choose a divisor of 128"),
        ({"dp": 3, "ep": 3}, {"batch": 6}, r"parallel.ep = 3: n_routed_experts = 256 leaves 1; choose a divisor"),
        ({"dp": 2, "ep": 2}, {"config": preset("tiny", first_k_dense_replace=6)}, "parallel.ep = 2: the model has no"),
        (
            {"cp": 4, "tp": 2},
            {"sequence": 12},
            r"parallel.cp = 4: a sequence of 12 tokens is no multiple of 16: cp x tp",
        ),
        ({"tp": 2}, {"sequence": 13}, r"parallel.tp = 2: a sequence of 13 tokens"),
        ({"dp": 3}, {}, r"train.sequences_per_step = 64: no multiple of replicas x dp = 1 x 3 = 3; choose 63"),
        ({"pp": 64, "micro_batches": 64}, {}, r"parallel.pp = 64: pp x stages_per_rank = 64 x 1 stages for 61 layers"),
        ({"micro_batches": 7}, {}, r"parallel.micro_batches = 7: a rank has 64 sequences of a step \(64 / 1\); choose"),
        ({"stages_per_rank": 2, "micro_batches": 4}, {}, r"parallel.stages_per_rank = 2: there is no pipeline"),
        ({"pp": 2, "schedule": "interleaved"}, {}, r"stages_per_rank = 1: 'interleaved' needs 2 or more"),
        (
            {"pp": 3, "schedule": "zero-bubble", "stages_per_rank": 2, "micro_batches": 8},
            {},
            r"micro_batches = 8: schedule 'zero-bubble' runs them in 2 rounds of pp = 3",
        ),
        (
            {"pp": 4, "schedule": "dualpipev", "stages_per_rank": 2, "micro_batches": 4},
            {},
            r"parallel.micro_batches = 4: fewer than the 8 stages",
        ),
    ],
)
def test_refusals_name_key_value_and_equation(layout, changes, words):
    settings_of = ParallelSettings(**layout)
    found = "\n".join(map(str, refusals(job_of(settings_of, **changes), settings_of)))
    if "rounds" in words:  # 8 micro-batches in 2 rounds are 4 each: fine; 7 of 3 are not
        assert found == ""
        return
    import re

    assert re.search(words, found), found


@settings(max_examples=60, deadline=None)
@given(
    gpus=st.integers(1, 40),
    batch=st.integers(1, 100),
    sequence=st.sampled_from([1, 7, 64, 12288]),
    name=st.sampled_from(["pico", "tiny", "base"]),
    machine=st.sampled_from(["cpu", "l40s", "gb300"]),
)
def test_any_search_ends_in_plans_or_reasons(gpus, batch, sequence, name, machine):
    job = Job(config=preset(name), accelerator=accelerator(machine), gpus=gpus, batch=batch, sequence=sequence)
    found = search(job)
    assert found.plans or found.refused
    for reason in found.refused.values():
        assert reason.finding.key == "memory" or reason.finding.key.split(".")[0] in ("parallel", "train")
        assert str(reason.finding.value) in str(reason.finding)
    for plan in found.plans:
        assert list(refusals(job, plan.layout)) == []
        assert plan.step.seconds > 0
