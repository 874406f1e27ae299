import pytest
from hypothesis import given
from hypothesis import strategies as st

from yatsude.errors import RecipeError
from yatsude.spec.counts import count
from yatsude.spec.hardware import ACCELERATORS, accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.pieces import held, layers_of, pieces
from yatsude.spec.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_pieces_sum_to_the_counts(name):
    config = preset(name, num_nextn_predict_layers=1)
    counts, found = count(config), pieces(config)
    assert sum(piece.total for piece in found if piece.kind != "ahead") == counts.total
    assert sum(piece.total for piece in found if piece.kind == "ahead") == counts.mtp
    assert sum(piece.experts for piece in found if piece.kind == "mixture") == counts.routed_experts
    assert all(piece.matrices <= piece.total for piece in found)


def test_latents_routers_and_shared_experts_are_not_cut_by_tensor_parallelism():
    config = PRESETS["700b"]
    mixture = next(piece for piece in pieces(config) if piece.kind == "mixture")
    latents = 7168 * (1536 + 512 + 64) + 1536 + 512
    shared = 3 * 7168 * 2048
    assert mixture.whole == latents + shared + 256 * 7168 + 2 * 7168


@given(
    pp=st.integers(1, 12),
    stages=st.integers(1, 4),
    schedule=st.sampled_from(["1f1b", "interleaved", "zero-bubble", "zbv", "dualpipev"]),
    layers=st.integers(1, 70),
    ahead=st.integers(0, 1),
)
def test_every_layer_lies_on_one_stage_and_ranks_get_about_the_same(pp, stages, schedule, layers, ahead):
    stages = {"1f1b": 1, "zbv": 2, "dualpipev": 2}.get(schedule, stages)
    config = preset("pico", num_hidden_layers=layers, num_nextn_predict_layers=ahead)
    layout = ParallelSettings(pp=pp, schedule=schedule, stages_per_rank=stages)
    cut = layers_of(config, layout)
    assert len(cut) == layout.stages
    assert [layer for stage in cut for layer in stage] == list(range(layers))
    if layers >= layout.stages:
        assert all(len(stage) for stage in cut[:-1])
    ranks = held(config, layout)
    assert sum(rank.dense + rank.mixtures for rank in ranks) == layers
    assert [rank.first for rank in ranks] == [number == 0 for number in range(pp)]
    assert sum(rank.last for rank in ranks) == 1
    others = [rank.dense + rank.mixtures for rank in ranks if not rank.last]
    assert max(others, default=0) - min(others, default=0) <= 1


def test_the_turn_of_a_v_gives_one_rank_both_ends():
    ranks = held(PRESETS["700b"], ParallelSettings(pp=16, schedule="dualpipev", stages_per_rank=2))
    assert ranks[0].first
    assert ranks[0].last
    assert ranks[0].dense + ranks[0].mixtures < ranks[5].mixtures


def test_accelerators_are_found_by_name():
    assert accelerator("H100") is ACCELERATORS["h100"]
    assert all(one.fp8 in (0, one.fp8) and one.memory and one.node for one in ACCELERATORS.values())
    with pytest.raises(RecipeError, match="unknown accelerator 'h10'; did you mean 'h100'"):
        accelerator("h10")
