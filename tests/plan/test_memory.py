import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yatsude.plan.activations import activations, kept
from yatsude.plan.job import Job
from yatsude.plan.memory import FRAGMENTED, in_flight, parts, peak, rank_memory, weights
from yatsude.spec.counts import count
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.pieces import held
from yatsude.spec.presets import preset

GIB = 2**30
DRY_RUN = {0: (0.41, 0.83, 31.3), 7: (1.34, 2.68, 25.4), 15: (1.03, 2.06, 24.8)}
"""Pipeline rank -> GiB of parameters, of the optimizer, and at the peak with full recomputation: a dry run of another
model code with the same shapes."""


def test_stages_of_deepseek_v3_sum_to_671_billion(v3, cut):
    shards = [weights(v3, cut, mine).sharded for mine in held(v3, cut)]
    assert sum(shards) * cut.shard_ranks == pytest.approx(671_026_404_352, abs=1)


@pytest.mark.parametrize("tp", [1, 2, 8])
@pytest.mark.parametrize("ep", [1, 8])
def test_ranks_hold_every_weight_once(v3, tp, ep):
    layout = ParallelSettings(pp=4, dp=8, tp=tp, ep=ep)
    shards = sum(weights(v3, layout, mine).sharded for mine in held(v3, layout)) * layout.shard_ranks
    assert shards == pytest.approx(671_026_404_352, abs=1)


@pytest.mark.parametrize("rank", DRY_RUN)
def test_a_rank_weighs_what_its_dry_run_did(large, cut, rank):
    found = rank_memory(large, cut, rank)
    parameters, optimizer, peak_seen = DRY_RUN[rank]
    assert found["weights"] / GIB == pytest.approx(parameters, abs=0.006)
    assert found["optimizer"] / GIB == pytest.approx(optimizer, abs=0.006)
    tracked = sum(found.values()) - found["framework"] - found["fragmented"]
    assert 0.75 * peak_seen < tracked / GIB < 1.1 * peak_seen
    assert found["fragmented"] == pytest.approx(FRAGMENTED * tracked)


def test_recomputing_more_keeps_less(large, cut):
    sizes = [kept(large, cut, "mixture", how) for how in ("none", "selective", "full")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] == 2 * 4096 * 7168
    names = [part.name for part in activations(large, cut, "mixture")]
    assert {"norms", "keys and values", "router", "routed rows", "experts", "shared experts"} <= set(names)


def test_rows_to_experts_grow_with_imbalance_and_keys_with_context_ranks(large, cut):
    def sizes(job, layout):
        return {part.name: part.whole for part in activations(job, layout, "mixture")}

    even, uneven = sizes(large, cut), sizes(dataclasses.replace(large, imbalance=1.5), cut)
    assert uneven["routed rows"] == 1.5 * even["routed rows"]
    apart = sizes(large, dataclasses.replace(cut, dp=64, cp=2, micro_batches=64))
    assert apart["queries"] == even["queries"] / 2
    assert apart["keys and values"] == even["keys and values"]  # of the whole sequence on every rank


@pytest.mark.parametrize(
    ("schedule", "stages", "expected"),
    [
        ("1f1b", 1, [4, 3, 2, 1]),
        ("interleaved", 2, [5.5, 4.5, 3.5, 2.5]),
        ("zero-bubble", 2, [4, 4, 4, 4]),
        ("zbv", 2, [4, 4, 4, 4]),
        ("dualpipev", 2, [4.5, 4.5, 4.5, 4.5]),
    ],
)
def test_micro_batches_in_flight(schedule, stages, expected):
    layout = ParallelSettings(pp=4, schedule=schedule, stages_per_rank=stages, micro_batches=16)
    assert [in_flight(layout, rank) for rank in range(4)] == expected
    assert in_flight(dataclasses.replace(layout, micro_batches=2), 0) <= 2


def test_a_split_backward_keeps_what_was_computed_again(large, cut):
    split = dataclasses.replace(cut, schedule="zbv", stages_per_rank=2)
    assert rank_memory(large, split, 7)["computed again"] > 5 * GIB
    assert "computed again" not in rank_memory(large, cut, 7)


def test_muon_and_narrow_states_and_offloading_take_less(large, cut):
    plain = rank_memory(large, cut, 7)
    muon = rank_memory(dataclasses.replace(large, optimizer="muon"), cut, 7)
    narrow = rank_memory(dataclasses.replace(large, states="bf16", gradients="bf16"), cut, 7)
    away = rank_memory(large, dataclasses.replace(cut, offload=True), 7)
    assert 0.5 * plain["optimizer"] < muon["optimizer"] < 0.52 * plain["optimizer"]
    assert narrow["optimizer"] == plain["optimizer"] / 2
    assert narrow["unsharded gradients"] == plain["unsharded gradients"] / 2
    assert away["weights"] == away["optimizer"] == 0


def test_the_last_rank_has_logits_and_what_predicts_ahead(large, cut):
    ahead = dataclasses.replace(large, config=preset("700b"))
    assert "logits" in rank_memory(large, cut, 15)
    assert "logits" not in rank_memory(large, cut, 3)
    mine = held(ahead.config, cut)[-1]
    kinds = dict(parts(ahead.config, mine))
    assert kinds["ahead"] == kinds["embedding"] == kinds["head"] == 1


def test_the_peak_is_the_worst_rank(large, cut):
    rank, memory = peak(large, cut)
    assert sum(memory.values()) == max(sum(rank_memory(large, cut, one).values()) for one in range(16))
    assert rank == 0


@given(
    dp=st.integers(1, 9),
    tp=st.integers(1, 9),
    cp=st.integers(1, 5),
    pp=st.integers(1, 5),
    replicas=st.integers(1, 3),
    sequence=st.integers(1, 300),
    batch=st.integers(1, 50),
    recompute=st.sampled_from(["none", "selective", "full"]),
    name=st.sampled_from(["pico", "700b"]),
)
def test_no_divisor_crashes_and_all_weights_are_somewhere(dp, tp, cp, pp, replicas, sequence, batch, recompute, name):
    layout = ParallelSettings(dp=dp, tp=tp, cp=cp, pp=pp, replicas=replicas, recompute=recompute)
    config = preset(name)
    job = Job(config=config, accelerator=accelerator("cpu"), gpus=layout.ranks, sequence=sequence, batch=batch)
    _, memory = peak(job, layout)
    assert all(value >= 0 for value in memory.values())
    total = sum(weights(config, layout, mine).sharded for mine in held(config, layout)) * layout.shard_ranks
    counts = count(config)
    assert total >= counts.total + counts.mtp - 1
