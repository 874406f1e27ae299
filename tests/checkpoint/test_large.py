"""The shape of the reference model: its list of tensors is right before anybody downloads a terabyte."""

import math
import subprocess
import sys

import pytest
import torch

from yatsude.checkpoint.hf import InMemory, load
from yatsude.checkpoint.verify import verify
from yatsude.checkpoint.write import Precision, write
from yatsude.model import float8
from yatsude.model.transformer import Transformer
from yatsude.spec.presets import PRESETS, preset
from yatsude.spec.stored import names_of_copies, stored, tensors

LARGE = PRESETS["700b"]
EIGHT = Precision(torch.float8_e4m3fn)


def test_the_list_of_tensors_is_that_of_the_model():
    with torch.device("meta"):
        model = Transformer(LARGE)
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert ours == tensors(LARGE)
    placed = stored(LARGE)
    copies = names_of_copies(LARGE)
    filled = dict.fromkeys(ours, 0)
    for name, entry in placed.items():
        if name not in copies:
            filled[entry.place.tensor] += math.prod(entry.shape)
    assert filled == {name: math.prod(shape) for name, shape in ours.items()}


def test_names_are_those_of_the_published_files():
    placed = stored(LARGE)
    scales = [name for name, entry in placed.items() if EIGHT.of(name, entry.shape) == torch.float8_e4m3fn]
    assert len(placed) == 46_183
    assert len(placed) + len(scales) == 91_991  # entries of the index of the published weights
    shapes = {
        "model.embed_tokens.weight": (129280, 7168),
        "model.layers.0.mlp.gate_proj.weight": (18432, 7168),
        "model.layers.3.mlp.experts.255.down_proj.weight": (7168, 2048),
        "model.layers.60.mlp.gate.e_score_correction_bias": (256,),
        "model.layers.61.eh_proj.weight": (7168, 14336),
        "model.layers.61.shared_head.norm.weight": (7168,),
        "model.layers.61.embed_tokens.weight": (129280, 7168),
        "model.layers.61.self_attn.kv_a_proj_with_mqa.weight": (576, 7168),
    }
    assert {name: placed[name].shape for name in shapes} == shapes
    assert float8.scale_shape(placed["model.layers.5.self_attn.kv_a_proj_with_mqa.weight"].shape) == (5, 56)


SCRIPT = """
import resource, torch
from yatsude.model import float8
from yatsude.model.transformer import Transformer
from yatsude.spec.presets import PRESETS
from yatsude.spec.stored import stored
with torch.device("meta"):
    model = Transformer(PRESETS["700b"])
assert len(stored(model.config)) > 46_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_it_takes_little_memory():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 2 * 2**30


@pytest.fixture(scope="module")
def toy():
    """The same layers, experts and names at a thousandth of the width."""
    from yatsude.model.init import initialise

    config = preset(
        "700b",
        vocab_size=512,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=16,
        moe_intermediate_size=4,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=4,
    )
    model = Transformer(config)
    initialise(model, 0)
    return model


@pytest.mark.soak
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_with_the_same_names_passes_out_in_and_out(toy, tmp_path, dtype):
    model = toy.to(dtype)
    for router in model.routers:
        router.e_score_correction_bias = router.e_score_correction_bias.float()
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    write(InMemory(model), tmp_path / "a", Precision(dtype), 200_000)
    again = load(tmp_path / "a")
    write(InMemory(again), tmp_path / "b", Precision(dtype), 10**9)
    assert verify(tmp_path / "b", InMemory(model)).tensor_difference == 0
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
