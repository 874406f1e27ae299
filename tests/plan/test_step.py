import dataclasses
import json

import pytest

from yatsude.errors import RecipeError
from yatsude.plan.job import Job
from yatsude.plan.products import Product, attention_flops, products
from yatsude.plan.rates import calibrated, rates
from yatsude.plan.step import Pass, bubble, step
from yatsude.spec.counts import count
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_products_are_two_flops_a_parameter_and_token(name):
    """Of one process: all that a token is multiplied by, norms aside."""
    config = preset(name, num_nextn_predict_layers=0)
    job = Job(config=config, accelerator=accelerator("h100"), gpus=1, sequence=64, batch=1, imbalance=1.0)
    layers = {"dense": config.first_k_dense_replace, "mixture": config.moe_layers, "head": 1}
    found = sum(times * one.flops for kind, times in layers.items() for one in products(job, ParallelSettings(), kind))
    counts = count(config)
    assert found == pytest.approx(2 * 64 * (counts.active - counts.norms), rel=1e-4)


def test_a_layer_of_deepseek_v3_computes_what_its_dry_run_did(large, cut):
    """4.921 GFLOP a token and layer: forward and backward, attention over padded heads without a causal half."""
    forward = sum(one.flops for one in products(large, cut, "mixture"))
    padded = attention_flops(large, cut) * 2 * (192 + 192) / (192 + 128)
    assert (3 * forward + 3.5 * padded) / 4096 == pytest.approx(4.921e9, rel=0.002)


@pytest.mark.parametrize("axes", [{"tp": 4}, {"cp": 4}, {"ep": 8, "dp": 8}, {"tp": 2, "cp": 2, "ep": 4}])
def test_cut_products_sum_to_the_whole(axes):
    config = preset("base")
    one = Job(config=config, accelerator=accelerator("h100"), gpus=1, sequence=1024, batch=8, imbalance=1.0)
    layout = ParallelSettings(**axes, micro_batches=1)
    whole = sum(p.flops for p in products(one, ParallelSettings(micro_batches=1), "mixture"))
    each = sum(p.flops for p in products(one, layout, "mixture"))
    tokens = 1024 * 8 / layout.dp
    # every context parallel rank expands the latents of the whole sequence, every tensor parallel one makes them
    again = (layout.cp - 1) * 2 * tokens * config.kv_lora_rank * 16 * (64 + 96)
    again += (layout.tp - 1) * 2 * tokens * config.hidden_size * sum(config.cache_widths)
    assert each * layout.shard_ranks == pytest.approx(whole + again)


def test_small_products_wait_for_their_bytes():
    reached = rates(accelerator("h100"))
    wide, thin = Product(8192, 4096, 4096), Product(8, 4096, 4096)
    times = [one.flops / reached.matrix / (one.bytes(2) / reached.bandwidth) for one in (wide, thin)]
    assert times[0] > 5
    assert times[1] < 0.1


def test_bubbles_are_those_of_the_papers():
    even = Pass(forward=1.0, inputs=1.0, weights=1.0)

    def waited(schedule, stages=2):
        return bubble(ParallelSettings(pp=4, schedule=schedule, stages_per_rank=stages), even)

    assert waited("1f1b", 1) == 9
    assert waited("interleaved") == 4.5
    assert waited("zero-bubble", 1) == 3
    assert waited("zbv") == 0
    assert waited("dualpipev") == 3
    assert bubble(ParallelSettings(), even) == 0


def test_recomputing_costs_time_and_overlap_saves_it(large, cut):
    none, selective, full = (
        step(large, dataclasses.replace(cut, recompute=how)).seconds for how in ("none", "selective", "full")
    )
    assert none < selective < full
    assert step(dataclasses.replace(large, overlap=True), cut).seconds < full


def test_a_step_is_the_sum_of_its_terms(large, cut):
    found = step(large, cut)
    assert found.seconds == sum(found.terms.values())
    assert found.tokens_a_second == pytest.approx(large.tokens / found.seconds / 2048)
    assert 0.05 < found.utilisation < 0.6


def test_eight_bits_need_hardware(large, cut):
    assert step(dataclasses.replace(large, precision="fp8"), cut).seconds < step(large, cut).seconds
    with pytest.raises(RecipeError, match="precision = 'fp8': a100-80 has no FP8 products; use bf16"):
        rates(accelerator("a100-80"), "fp8")


def test_measured_rates_take_the_place_of_stated_ones(tmp_path, large, cut):
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"matrix": 1e12, "network": 1e9}))
    found = calibrated(rates(accelerator("h100")), path)
    assert (found.matrix, found.network, found.link) == (1e12, 1e9, rates(accelerator("h100")).link)
    assert step(dataclasses.replace(large, measured=found), cut).seconds > 20 * step(large, cut).seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "expected an object"),
        ('{"matrx": 1}', "unknown figure 'matrx'; did you mean 'matrix'"),
        ('{"matrix": -1}', "matrix = -1: expected a number above 0"),
        ('{"matrix": true}', "matrix = True"),
    ],
)
def test_a_broken_calibration_is_named(tmp_path, text, words):
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        calibrated(rates(accelerator("h100")), path)
    with pytest.raises(RecipeError, match="no calibration at"):
        calibrated(rates(accelerator("h100")), tmp_path / "none.json")
