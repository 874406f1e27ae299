import pytest

from yatsude.errors import RecipeError
from yatsude.spec.parallel import ParallelSettings


def test_ranks_of_a_large_job():
    job = ParallelSettings(pp=16, dp=128, ep=64, schedule="dualpipev", stages_per_rank=2)
    assert (job.ranks, job.shard_ranks, job.edp, job.stages, job.batch_ranks) == (2048, 128, 2, 32, 128)
    assert job.splits_backward
    assert not ParallelSettings(schedule="zbv").splits_backward


def test_experts_are_dealt_out_over_all_ranks_of_a_stage():
    job = ParallelSettings(dp=2, replicas=3, tp=2, cp=2, ep=4)
    assert (job.ranks, job.edp, job.batch_ranks) == (24, 2, 6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tp": 0}, r"parallel\.tp = 0"),
        ({"dp": 4, "ep": 3}, r"parallel\.ep = 3: expected a divisor of dp x cp x tp = 4"),
        ({"pp": 2, "schedule": "zbv"}, "schedule 'zbv' has 2 a rank"),
        ({"micro_batches": -1}, r"parallel\.micro_batches = -1"),
    ],
)
def test_what_is_no_mesh_is_named(changes, words):
    with pytest.raises(RecipeError, match=words):
        ParallelSettings(**changes)
