"""FP8 in memory computes what the same numbers widened do."""

import pytest
import torch

from yatsude.checkpoint import hf
from yatsude.checkpoint.write import Precision, write
from yatsude.errors import CheckpointError

TOKENS = torch.randint(300, (2, 24), generator=torch.Generator().manual_seed(0))
BLOCKS = (16, 16)


def folder_of(model, place, precision=None):
    place.mkdir()
    write(hf.InMemory(model), place, precision or Precision(torch.float8_e4m3fn, BLOCKS), 10**9)
    return place


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"num_nextn_predict_layers": 1},
        {"q_lora_rank": 16, "tie_word_embeddings": True},
        {"model_type": "qwen2"},
        {"model_type": "glm4_moe", "n_shared_experts": 1},
    ],
)
def test_logits_are_those_of_the_widened_numbers(build, tmp_path, changes):
    folder = folder_of(build(**changes), tmp_path / "a")
    plain, small = hf.load(folder, torch.float32), hf.load_quantised(folder, torch.float32)
    torch.testing.assert_close(small.logits(small(TOKENS)), plain.logits(plain(TOKENS)), rtol=0, atol=1e-6)
    if plain.mtp:
        ahead = (model.ahead(0, model(TOKENS), TOKENS) for model in (plain, small))
        torch.testing.assert_close(*ahead, rtol=0, atol=1e-6)


def test_what_is_stored_is_taken_as_it_is(model, tmp_path):
    folder = folder_of(model, tmp_path / "a")
    source = hf.Folder(folder)
    experts = hf.load_quantised(folder).layers[1].mlp.experts
    stored, scale = experts.held("gate_up_proj")
    name = "model.layers.1.mlp.experts.5.up_proj.weight"
    assert torch.equal(stored[5, 32:].view(torch.uint8), source.raw(name).view(torch.uint8))
    assert torch.equal(scale[5, 2:], source.scale(name))


def test_it_takes_about_half_of_bf16(build, tmp_path):
    folder = folder_of(build(vocab_size=300, hidden_size=128, intermediate_size=512), tmp_path / "a")

    def size(model):
        tensors = [*model.layers.parameters(), *model.layers.buffers()]
        return sum(tensor.nbytes for tensor in tensors)

    assert size(hf.load_quantised(folder)) < 0.56 * size(hf.load(folder, torch.bfloat16))


def test_other_precisions_are_quantised_on_the_way(build, tmp_path):
    model = build(moe_intermediate_size=128, intermediate_size=256)
    on_the_way = hf.load_quantised(folder_of(model, tmp_path / "a", Precision(torch.float32)), torch.float32)
    on_disk = hf.load(folder_of(model, tmp_path / "b", Precision(torch.float8_e4m3fn)), torch.float32)
    expert = on_the_way.layers[1].mlp.experts.widened("down_proj", 3)
    assert torch.equal(expert, on_disk.layers[1].mlp.experts.down_proj[3])
    assert torch.equal(on_the_way.layers[0].mlp.down_proj.weight, on_disk.layers[0].mlp.down_proj.weight)


def test_halves_that_share_a_block_are_refused(model, tmp_path):
    folder = folder_of(model, tmp_path / "a", Precision(torch.bfloat16))
    with pytest.raises(CheckpointError, match="64 rows: FP8 in memory needs a multiple of 128"):
        hf.load_quantised(folder)
