import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from yatsude import manifest
from yatsude.checkpoint import hf, verify
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.hf import InMemory
from yatsude.errors import CheckpointError, DataError


def written(model, folder, dtype=torch.bfloat16):
    folder.mkdir()
    hf.write(model, folder, dtype, 10**9)
    return folder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_good_folder_differs_by_rounding_alone(model, tmp_path, dtype):
    figures = verify.verify(written(model, tmp_path / "a", dtype), InMemory(model))
    assert figures.tensor_difference == figures.logit_difference == 0
    assert (figures.rounding_difference == 0) == (dtype == torch.float32)
    assert figures.same_choice > 0.9


def test_another_model_is_told_apart(build, tmp_path):
    model = build()
    model.layers[1].mlp.experts.down_proj.data[4, 0, 0] = 0.0
    folder = written(model, tmp_path / "a")
    model.layers[1].mlp.experts.down_proj.data[4, 0, 0] = 0.5
    with pytest.raises(CheckpointError, match=r"weights differ by 0\.5"):
        verify.verify(folder, InMemory(model))


def test_a_setting_that_no_weight_shows_is_named(build, tmp_path):
    folder = written(build(), tmp_path / "a")
    other = written(build(rope_theta=50.0), tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"another model: rope_theta = 10000\.0, expected 50\.0"):
        verify.verify(folder, Folder(other))


def test_router_biases_are_compared_too(build, tmp_path):
    model = build()
    folder = written(model, tmp_path / "a")
    model.routers[1].e_score_correction_bias[0] += 0.25
    with pytest.raises(CheckpointError, match=r"weights differ by 0\.25"):
        verify.verify(folder, InMemory(model))


def test_two_folders_can_be_compared(model, tmp_path):
    one, other = written(model, tmp_path / "a"), written(model, tmp_path / "b")
    assert verify.verify(one, Folder(other)).logit_difference == 0
    assert verify.check(one).tensors_sha256 == verify.check(other).tensors_sha256


def test_the_last_bit_counts(model, tmp_path):
    """A difference below float32, and a zero with another sign."""
    name = "model.norm.weight"
    for number, (mine, theirs) in enumerate([(1.0, 1.0 + 1e-12), (0.0, -0.0)]):
        folders = []
        for side, value in enumerate((mine, theirs)):
            folder = tmp_path / f"{number}{side}"
            folder.mkdir()
            hf.write(model, folder, torch.float64, 10**9)
            tensors = load_file(folder / "model.safetensors")
            tensors[name][0] = value
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            folders.append(folder)
        with pytest.raises(CheckpointError, match=f"most in {name}"):
            verify.verify(folders[0], Folder(folders[1]))


def test_a_flipped_bit_is_found_by_the_checksum(model, tmp_path):
    folder = written(model, tmp_path / "a")
    manifest.write(folder, "export")
    verify.check(folder)
    path = folder / "model.safetensors"
    with path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)[0]
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    with pytest.raises(DataError, match=r"model\.safetensors is not what was written"):
        verify.check(folder)


def test_a_folder_of_several_precisions_equals_itself(model, tmp_path):
    folder = written(model, tmp_path / "a", torch.float32)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].bfloat16()
    save_file(tensors, path)
    assert verify.verify(folder, Folder(folder)).tensor_difference == 0
