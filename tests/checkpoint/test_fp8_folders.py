import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from yatsude.checkpoint import hf, write
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.hf import InMemory
from yatsude.checkpoint.pieces import in_pieces
from yatsude.checkpoint.verify import check, verify
from yatsude.checkpoint.vocabulary import Extended
from yatsude.checkpoint.write import Precision
from yatsude.errors import CheckpointError
from yatsude.model import float8

BLOCKS = (16, 16)
EIGHT = Precision(torch.float8_e4m3fn, BLOCKS)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), st.floats(-12, 6))
def test_every_number_comes_back_within_half_a_step_of_its_block(rows, columns, seed, size):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 10**size
    stored, scale = float8.quantised(weight, BLOCKS)
    assert scale.shape == float8.scale_shape(weight.shape, BLOCKS)
    back = float8.dequantised(stored, scale, BLOCKS)
    step = scale.repeat_interleave(16, 0)[:rows].repeat_interleave(16, 1)[:, :columns]
    assert ((back - weight).abs() <= torch.maximum(weight.abs() / 16, step / 512) * 1.0001).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_the_second_trip_on_nothing_changes(dtype):
    first = torch.randn(300, 260, generator=torch.Generator().manual_seed(0))
    trips = []
    for _ in range(4):
        stored, scale = float8.quantised(first)
        trips.append((stored.view(torch.uint8), scale))
        first = float8.dequantised(stored, scale).to(dtype).float()
    for (a, b), (c, d) in itertools.pairwise(trips[1:]):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_zeros_stay_zeros():
    stored, scale = float8.quantised(torch.zeros(20, 20), BLOCKS)
    assert (scale == 1).all()
    assert float8.dequantised(stored, scale, BLOCKS).count_nonzero() == 0


def quantised(model, folder):
    folder.mkdir()
    write.write(InMemory(model), folder, EIGHT, 30_000)
    return folder


def test_matrices_of_the_layers_are_quantised_and_nothing_else(build, tmp_path):
    folder = Folder(quantised(build(num_nextn_predict_layers=1), tmp_path / "a"))
    eight = {name for name in folder.tensors if folder.is_quantised(name)}
    assert "model.layers.1.mlp.experts.7.down_proj.weight" in eight
    assert "model.layers.3.self_attn.kv_b_proj.weight" in eight
    assert not {n for n in eight if "norm" in n or "gate.weight" in n or "embed" in n or "head" in n or "eh_proj" in n}
    assert folder.entry("model.norm.weight").dtype == torch.bfloat16
    assert folder.entry("model.layers.1.mlp.gate.e_score_correction_bias").dtype == torch.float32
    page = json.loads((folder.path / "config.json").read_text())["quantization_config"]
    assert page == {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [16, 16],
    }


def test_a_folder_of_fp8_loads_verifies_and_passes_unchanged(model, tmp_path):
    first = quantised(model, tmp_path / "a")
    check(first)
    with in_pieces():  # with more threads products add up in another order
        figures = verify(first, InMemory(model))
    assert figures.tensor_difference == figures.logit_difference == 0
    assert figures.rounding_difference > 0
    second = tmp_path / "b"
    second.mkdir()
    write.write(Folder(first), second, EIGHT, 10**9)
    ours = load_file(second / "model.safetensors")
    for path in first.glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            assert torch.equal(ours[name].view(torch.uint8), tensor.view(torch.uint8)), name
    loaded = hf.load(first, torch.float32)
    direct = float8.dequantised(*float8.quantised(model.layers[1].self_attn.o_proj.weight.detach(), BLOCKS), BLOCKS)
    assert torch.equal(loaded.layers[1].self_attn.o_proj.weight, direct)


def test_what_another_vocabulary_does_not_touch_passes_unchanged(model, tmp_path):
    """Scales that no rounding of ours would choose are kept, as are the numbers under them."""
    first = quantised(model, tmp_path / "a")
    path = min(first.glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("o_proj.weight"))
    tensors[name + "_scale_inv"] *= 1.37
    save_file(tensors, path, metadata={"format": "pt"})
    source = Extended(Folder(first), [(row,) for row in range(model.config.vocab_size)])
    second = tmp_path / "b"
    second.mkdir()
    write.write(source, second, EIGHT, 10**9)
    assert verify(second, source).tensor_difference == 0
    for suffix in ("", "_scale_inv"):
        assert torch.equal(
            Folder(second).raw(name + suffix).view(torch.uint8), tensors[name + suffix].view(torch.uint8)
        )


@pytest.mark.parametrize("suffix", ["", "_scale_inv"])
@pytest.mark.parametrize("load", [hf.load, hf.load_quantised])
def test_a_number_or_scale_that_is_none_is_named(model, tmp_path, load, suffix):
    folder = quantised(model, tmp_path / "a")
    path = min(folder.glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("o_proj.weight")) + suffix
    tensors[name] = tensors[name].float().index_fill(0, torch.tensor([0]), torch.nan).to(tensors[name].dtype)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{name} holds numbers that are not finite"):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("fmt", "e5m2"), ("activation_scheme", "static"), ("bits", 4)], ids=["fmt", "scheme", "unknown"]
)
def test_fp8_that_is_stored_otherwise_is_refused(model, tmp_path, key, value):
    folder = quantised(model, tmp_path / "a")
    page = json.loads((folder / "config.json").read_text())
    page["quantization_config"][key] = value
    (folder / "config.json").write_text(json.dumps(page))
    with pytest.raises(CheckpointError, match=rf"quantization_config\.{key} = {value!r}"):
        Folder(folder)


def test_a_scale_beyond_float32_is_named(model, tmp_path):
    folder = quantised(model, tmp_path / "a")
    path = min(folder.glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("o_proj.weight_scale_inv"))
    tensors[name] += 1e38
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{name} holds a scale too large"):
        hf.load(folder)


def test_blocks_that_pieces_would_cut_are_refused(model, tmp_path):
    folder = quantised(model, tmp_path / "a")
    page = json.loads((folder / "config.json").read_text())
    page["quantization_config"]["weight_block_size"] = [96, 32]
    (folder / "config.json").write_text(json.dumps(page))
    with pytest.raises(CheckpointError, match=r"\[96, 32\]: expected rows that divide 128"):
        Folder(folder)


def test_rows_that_begin_within_a_block_are_read(model, tmp_path):
    folder = Folder(quantised(model, tmp_path / "a"))
    name = "model.layers.0.mlp.up_proj.weight"
    whole = folder.read(name)
    for rows in ((0, 5), (3, 20), (17, 64), (16, 32)):
        assert torch.equal(folder.read(name, rows), whole[slice(*rows)])


def test_a_number_is_what_is_stored_times_the_scale_of_its_block(model, tmp_path):
    folder = Folder(quantised(model, tmp_path / "a"))
    name = "model.layers.2.mlp.experts.5.gate_proj.weight"
    stored, scale = folder.raw(name).float(), folder.scale(name)
    expected = stored * scale.repeat_interleave(16, 0)[:32].repeat_interleave(16, 1)[:, :32]
    assert torch.equal(folder.read(name), expected)
