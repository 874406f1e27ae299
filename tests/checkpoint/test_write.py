import hashlib
import os

import pytest
import torch
from safetensors import safe_open

from yatsude.checkpoint import pieces as pieces_of
from yatsude.checkpoint import streamed, write
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.hf import InMemory, load
from yatsude.checkpoint.pieces import pieces
from yatsude.checkpoint.shard import as_bytes
from yatsude.checkpoint.write import Precision
from yatsude.model import float8

TOKENS = torch.randint(300, (2, 24), generator=torch.Generator().manual_seed(0))
FAMILIES = {
    "deepseek_v3": {},
    "glm4_moe": {"attention_bias": True, "num_nextn_predict_layers": 1, "n_shared_experts": 1},
    "mixtral": {},
    "qwen3_moe": {"num_key_value_heads": 1},
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
}


def tensors_of(folder):
    """Name -> bytes, in whatever files they lie."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {name: (t.dtype, t.shape, hashlib.sha256(as_bytes(t)).digest()) for name, t in found.items()}


def put(source, folder, precision, shard_bytes=40_000):
    folder.mkdir()
    write.write(source, folder, precision, shard_bytes)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_out_in_and_out_again_is_bit_identical(build, tmp_path, family, dtype):
    model = build(model_type=family, **FAMILIES[family]).to(dtype)
    for router in model.routers:
        if router.e_score_correction_bias is not None:
            router.e_score_correction_bias = router.e_score_correction_bias.float()
    first = put(InMemory(model), tmp_path / "a", Precision(dtype))
    second = put(InMemory(load(first)), tmp_path / "b", Precision(dtype), 10**9)
    third = put(Folder(second), tmp_path / "c", Precision(dtype), 1)
    assert tensors_of(first) == tensors_of(second) == tensors_of(third)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_opens_every_family_with_equal_logits(build, tmp_path, family):
    transformers = pytest.importorskip("transformers")
    model = build(model_type=family, **FAMILIES[family])
    folder = put(InMemory(model), tmp_path / "a", Precision(torch.float32))
    peer, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert all(name.startswith("model.layers.3.") for name in info["unexpected_keys"])  # multi-token prediction
    with torch.no_grad():
        ours = model.logits(model(TOKENS))
        torch.testing.assert_close(ours, peer.eval()(TOKENS).logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(streamed.logits(Folder(folder), TOKENS), ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_as_transformers_writes_it(build, tmp_path, family):
    transformers = pytest.importorskip("transformers")
    changes = {**FAMILIES[family], **({"num_nextn_predict_layers": 0} if family == "glm4_moe" else {})}
    first = put(InMemory(build(model_type=family, **changes)), tmp_path / "a", Precision(torch.float32))
    peer = transformers.AutoModelForCausalLM.from_pretrained(first, dtype=torch.float32)
    peer.save_pretrained(tmp_path / "b", max_shard_size="60KB")
    ours = load(tmp_path / "b")
    assert ours.config == load(first).config
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(TOKENS)), peer.eval()(TOKENS).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", [Precision(torch.bfloat16), Precision(torch.float8_e4m3fn)])
def test_pieces_make_no_difference(build, tmp_path, monkeypatch, precision):
    model = build(vocab_size=1000, intermediate_size=600)
    whole = put(InMemory(model), tmp_path / "a", precision)
    monkeypatch.setattr(pieces_of, "PIECE", 4 * 32 * 150)
    assert len(list(pieces((1000, 32)))) == 8
    assert tensors_of(put(InMemory(model), tmp_path / "b", precision)) == tensors_of(whole)
    logits = streamed.logits(Folder(whole), TOKENS)
    monkeypatch.setattr(pieces_of, "PIECE", 64 << 20)
    torch.testing.assert_close(streamed.logits(Folder(whole), TOKENS), logits, rtol=0, atol=1e-6)


def test_wide_numbers_come_first_so_that_all_are_aligned(build, tmp_path):
    folder = Folder(put(InMemory(build()), tmp_path / "a", Precision(torch.float8_e4m3fn, (16, 16)), 10**9))
    for shard in folder.shards.values():
        for entry in shard.entries.values():
            assert entry.start % entry.dtype.itemsize == 0


def test_scales_lie_in_the_file_of_their_weight(model, tmp_path):
    folder = Folder(put(InMemory(model), tmp_path / "a", Precision(torch.float8_e4m3fn, (16, 16)), 3000))
    assert len(folder.shards) > 10
    for name in folder.tensors:
        if folder.is_quantised(name):
            assert folder.file(name) == folder.file(name + float8.SUFFIX)


def test_files_are_on_disk_before_they_count(model, tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    folder = put(InMemory(model), tmp_path / "a", Precision(torch.float32))
    assert len(flushed) >= len(list(folder.glob("*.safetensors")))
