import dataclasses

import pytest

from yatsude.plan.job import Job
from yatsude.plan.mesh import Group, group
from yatsude.plan.rates import rates
from yatsude.plan.traffic import seconds, traffic
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset

GIB = 2**30


def flows(job, layout, rank=0):
    return {(flow.axis, flow.kind): flow for flow in traffic(job, layout, rank)}


def test_the_middle_rank_moves_what_its_dry_run_did(large, cut):
    """All-to-all 672 GiB in and out in 768 calls, FSDP 1.31 + 1.74 and 2.63 + 3.48, pipeline 3.5 + 3.5 GiB."""
    found = flows(large, cut, 7)
    rows = found["ep", "all-to-all"]
    assert (rows.calls, rows.bytes / GIB) == (768, 336)
    assert found["edp", "all-gather"].bytes / GIB == pytest.approx(1.31, abs=0.005)
    assert found["shard", "all-gather"].bytes / GIB == pytest.approx(1.74, abs=0.005)
    assert found["edp", "reduce-scatter"].bytes / GIB == pytest.approx(2.63, abs=0.006)
    assert found["shard", "reduce-scatter"].bytes / GIB == pytest.approx(3.48, abs=0.01)
    assert found["pp", "send"].bytes / GIB == 3.5


def test_ends_and_turns_of_a_pipeline_send_less(large, cut):
    sent = [flows(large, cut, rank)["pp", "send"].calls for rank in (0, 7, 15)]
    assert sent == [32, 64, 32]
    turned = dataclasses.replace(cut, schedule="zbv", stages_per_rank=2)
    assert [flows(large, turned, rank)["pp", "send"].calls for rank in (0, 7, 15)] == [64, 128, 64]


def test_groups_fill_nodes_in_the_order_of_the_mesh():
    layout = ParallelSettings(pp=2, replicas=2, dp=4, cp=2, tp=4, ep=16)
    found = {axis: group(layout, axis, 8) for axis in ("tp", "cp", "shard", "ep", "edp", "replicas", "pp")}
    assert found["tp"] == Group(4, 4)
    assert found["cp"] == Group(2, 2)
    assert found["shard"] == Group(8, 2)
    assert found["ep"] == Group(16, 8)
    assert found["edp"] == Group(2, 1)
    assert found["replicas"] == found["pp"] == Group(2, 1)
    assert Group(16, 8).nodes == 2


def test_bytes_of_a_group_are_split_over_its_links():
    assert Group(8, 8).gather(8.0) == (7.0, 0.0)
    assert Group(16, 8).gather(8.0) == (7.0, 0.5)  # each node fetches the other's half, over eight network cards
    assert Group(16, 8).exchange(16.0) == (7.0, 8.0)
    assert Group(1, 1).exchange(5.0) == Group(1, 1).gather(5.0) == (0.0, 0.0)


def test_rows_that_travel_once_a_node_spare_the_network(large, cut):
    once = dataclasses.replace(large, dispatch="once-a-node")
    plain, spared = flows(large, cut, 7)["ep", "all-to-all"], flows(once, cut, 7)["ep", "all-to-all"]
    assert spared.bytes == plain.bytes
    # four nodes a token (its groups): 4 · (1 - (3/4)^8) = 3.6 copies instead of 8
    assert spared.network / plain.network == pytest.approx(3.6 / 8, rel=1e-3)
    assert spared.link > plain.link


def test_each_axis_has_its_collectives_and_one_process_has_none(large):
    job = dataclasses.replace(large, config=preset("tiny"), gpus=64, batch=64, sequence=256)
    layout = ParallelSettings(replicas=2, dp=4, cp=2, tp=4, ep=8, micro_batches=2)
    assert set(flows(job, layout)) == {
        ("tp", "all-gather"), ("tp", "reduce-scatter"), ("cp", "all-gather"), ("cp", "reduce-scatter"),
        ("ep", "all-to-all"),
        ("shard", "all-gather"), ("shard", "reduce-scatter"), ("edp", "all-gather"), ("edp", "reduce-scatter"),
        ("replicas", "all-reduce"), ("all", "all-reduce"),
    }  # fmt: skip
    assert traffic(dataclasses.replace(job, gpus=1), ParallelSettings(), 0) == []


def test_without_a_pipeline_weights_come_for_every_micro_batch():
    job = Job(config=preset("tiny"), accelerator=accelerator("h100"), gpus=8, batch=32, sequence=256)
    once, four = (flows(job, ParallelSettings(dp=8, micro_batches=n))["shard", "all-gather"] for n in (1, 4))
    assert four.bytes == 4 * once.bytes


def test_seconds_are_the_slower_link_and_the_calls(large, cut):
    reached = rates(large.accelerator)
    rows = flows(large, cut, 7)["ep", "all-to-all"]
    assert seconds(rows, reached) == rows.network / reached.network + rows.calls * reached.latency
