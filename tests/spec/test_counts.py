import dataclasses

import pytest

from yatsude.spec.counts import cache_bytes, count, forward_flops, read_bytes, resident_bytes, training_flops
from yatsude.spec.presets import PRESETS, preset


def test_deepseek_v3_has_671_billion_parameters_and_37_active():
    counts = count(PRESETS["700b"])
    assert counts.total == 671_026_404_352
    assert round(counts.active / 1e9) == 37
    assert counts.routed_experts / counts.total > 0.97


def test_one_expert_of_all_layers_is_as_large_as_total_and_active_imply():
    """634 B that are not active are 248 experts; see docs/model.md for why "8 experts" must mean 8 of 256."""
    counts = count(PRESETS["700b"])
    assert counts.routed_experts / 256 == pytest.approx((671e9 - 37e9) / 248, rel=0.01)


def test_active_follows_the_number_of_chosen_experts():
    two, four = (count(preset("tiny", num_experts_per_tok=k)) for k in (2, 4))
    assert two.total == four.total
    assert four.active - two.active == two.routed_experts // 4
    every = count(preset("tiny", num_experts_per_tok=8))
    assert every.active == every.total - every.embedding


def test_a_tied_table_is_counted_once_and_is_active():
    apart, tied = count(preset("tiny")), count(preset("tiny", tie_word_embeddings=True))
    assert apart.total - tied.total == apart.embedding
    assert apart.active == tied.active


def test_flops_are_two_a_weight_and_grow_with_the_context():
    config = preset("tiny")
    counts = count(config)
    assert forward_flops(config) == 2 * (counts.active - counts.norms)
    slope = forward_flops(config, 101) - forward_flops(config, 100)
    assert slope == 2 * 6 * 5 * (32 + 32 + 64)
    assert training_flops(config, 200) == 3 * forward_flops(config, 100)


def test_a_cache_holds_latent_and_rotary_key():
    assert cache_bytes(PRESETS["700b"], "bfloat16") == 61 * 576 * 2
    assert cache_bytes(preset("tiny"), "float32") == 6 * (80 + 32) * 4


def test_all_weights_are_resident_and_few_are_read():
    config = PRESETS["700b"]
    assert resident_bytes(config) == 2 * count(config).total + 4 * count(config).biases
    assert read_bytes(config) < 0.06 * resident_bytes(config)
    assert resident_bytes(config, "float32") > 1.99 * resident_bytes(config)


def test_a_batch_shares_its_reading_until_everything_is_read():
    config = PRESETS["700b"]
    batches = [tokens * read_bytes(config, "bfloat16", tokens) for tokens in (1, 2, 8, 64, 4096)]
    assert batches == sorted(batches)
    assert batches[1] < 2 * batches[0]
    assert batches[-1] == pytest.approx(resident_bytes(config), rel=0.03)


def test_counts_are_plain_numbers():
    assert all(
        isinstance(v, int) for v in dataclasses.asdict(count(preset("nano"))).values() if not isinstance(v, tuple)
    )
