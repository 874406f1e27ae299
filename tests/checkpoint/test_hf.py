import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from yatsude.checkpoint import hf
from yatsude.errors import CheckpointError
from yatsude.spec.hf import to_hf
from yatsude.spec.presets import preset

VARIANTS = {"plain": {}, "low-rank queries": {"q_lora_rank": 12}, "tied": {"tie_word_embeddings": True}}
TOKENS = torch.randint(300, (2, 24), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model):
    return model.logits(model(TOKENS))


def written(model, folder, shard_bytes=10**9, dtype=torch.float32):
    folder.mkdir(exist_ok=True)
    hf.write(model, folder, dtype, shard_bytes)
    return folder


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def variant(request, build):
    return build(**request.param)


@pytest.mark.parametrize("shard_bytes", [1, 20_000, 10**9])
def test_what_is_written_is_read_bit_for_bit(variant, tmp_path, shard_bytes):
    model = hf.load(written(variant, tmp_path / "out", shard_bytes))
    assert model.config == variant.config
    ours = variant.state_dict()
    assert model.state_dict().keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(model), logits(variant))
    assert (model.lm_head.weight is model.embed_tokens.weight) == variant.config.tie_word_embeddings


def test_names_on_disk_are_those_of_deepseek_v3(model, tmp_path):
    names = load_file(written(model, tmp_path / "out") / "model.safetensors")
    assert "model.layers.1.mlp.experts.7.gate_proj.weight" in names
    assert "model.layers.0.mlp.up_proj.weight" in names
    assert names["model.layers.2.mlp.gate.e_score_correction_bias"].dtype == torch.float32
    assert not any("gate_up" in name for name in names)
    gate, up = model.layers[1].mlp.experts.gate_up_proj[5].chunk(2)
    assert torch.equal(names["model.layers.1.mlp.experts.5.gate_proj.weight"], gate)
    assert torch.equal(names["model.layers.1.mlp.experts.5.up_proj.weight"], up)


def test_shards_are_as_small_as_asked_and_listed(model, tmp_path):
    folder = written(model, tmp_path / "out", 20_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    total = 0
    for file in files:
        tensors = load_file(folder / file)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 20_000 or len(tensors) == 1
        assert {name for name, where in index["weight_map"].items() if where == file} == set(tensors)
        total += size
    assert index["metadata"]["total_size"] == total


def test_weights_may_be_read_by_whoever_may_read_the_config(model, tmp_path):
    folder = written(model, tmp_path / "out")
    modes = {name: (folder / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert modes["model.safetensors"] == modes["config.json"]


def test_precision_on_disk_and_in_memory(model, tmp_path):
    folder = written(model, tmp_path / "out", dtype=torch.bfloat16)
    assert hf.load(folder).embed_tokens.weight.dtype == torch.bfloat16
    wide = hf.load(folder, torch.float32)
    assert torch.equal(wide.norm.weight, model.norm.weight.bfloat16().float())
    bias = wide.routers[0].e_score_correction_bias
    assert torch.equal(bias, model.routers[0].e_score_correction_bias)
    assert hf.load(folder, torch.float64).routers[0].e_score_correction_bias.dtype == torch.float32


def test_transformers_reads_our_folder_with_equal_logits(variant, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = written(variant, tmp_path / "out", 50_000)
    peer, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert isinstance(peer, transformers.DeepseekV3ForCausalLM)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        torch.testing.assert_close(logits(variant), peer.eval()(TOKENS).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_we_read_the_folder_of_transformers_with_equal_logits(changes, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = preset("pico", vocab_size=300, num_hidden_layers=3, **changes)
    torch.manual_seed(0)
    page = {key: value for key, value in to_hf(config).items() if key != "torch_dtype"}
    peer = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**page)).float().eval()
    with torch.no_grad():
        for name, buffer in peer.named_buffers():
            if name.endswith("correction_bias"):
                buffer.normal_(std=0.1)
        for weight in peer.parameters():
            weight.mul_(2 if weight.ndim > 1 else 1)
    peer.save_pretrained(tmp_path, max_shard_size="100KB")
    model = hf.load(tmp_path)
    assert model.config == config
    with torch.no_grad():
        torch.testing.assert_close(logits(model), peer(TOKENS).logits, rtol=0, atol=1e-5)


def changed(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def one_line(folder, *words):
    with pytest.raises(CheckpointError) as caught:
        hf.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_missing_and_unknown_tensors_are_both_listed(model, tmp_path):
    folder = written(model, tmp_path / "out")

    def rename(tensors):
        tensors["model.final.weight"] = tensors.pop("model.norm.weight")

    changed(folder, rename)
    one_line(folder, "missing model.norm.weight", "unknown model.final.weight")


def test_many_missing_tensors_are_counted(model, tmp_path):
    folder = written(model, tmp_path / "out")
    changed(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".experts." in name])
    one_line(folder, "and 43 more")


def test_a_wrong_shape_names_both(model, tmp_path):
    folder = written(model, tmp_path / "out")
    changed(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}))
    one_line(folder, "model.norm.weight", "(31,)", "(32,)")


def test_quantised_weights_are_refused(model, tmp_path):
    folder = written(model, tmp_path / "out")
    name = "model.layers.0.mlp.up_proj.weight"
    changed(folder, lambda tensors: tensors.update({name: tensors[name].to(torch.float8_e4m3fn)}))
    one_line(folder, name, "float8_e4m3fn")


@pytest.mark.parametrize("keep", [0, 3, 8, 100, 0.5, 0.999])
def test_a_truncated_file_is_one_line(model, tmp_path, keep):
    folder = written(model, tmp_path / "out")
    path = folder / "model.safetensors"
    os.truncate(path, int(path.stat().st_size * keep) if isinstance(keep, float) else keep)
    one_line(folder, "model.safetensors is damaged")


def test_a_damaged_header_or_index_is_one_line(model, tmp_path):
    folder = written(model, tmp_path / "out", 20_000)
    shard = sorted(folder.glob("*.safetensors"))[1]
    content = bytearray(shard.read_bytes())
    content[20:40] = b"\xff" * 20
    shard.write_bytes(content)
    one_line(folder, shard.name, "damaged")
    shard.unlink()
    one_line(folder, shard.name, "missing")
    for page in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        (folder / "model.safetensors.index.json").write_text(page)
        one_line(folder, "index.json is damaged")


def test_a_folder_without_weights_or_config_is_one_line(model, tmp_path):
    one_line(tmp_path, "no config.json")
    folder = written(model, tmp_path / "out")
    (folder / "model.safetensors").unlink()
    one_line(folder, "no model.safetensors")


MEASURE = """
import resource, sys, torch
from pathlib import Path
from yatsude.checkpoint import hf
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = hf.load(Path(sys.argv[1]))
weights = sum(w.nbytes for w in model.parameters())
print(peak() - before, weights)
"""


def test_reading_takes_the_weights_and_one_shard(build, tmp_path):
    sizes = {"vocab_size": 20_000, "hidden_size": 256, "num_hidden_layers": 6, "moe_intermediate_size": 256}
    shard = 6_000_000
    folder = written(build(**sizes), tmp_path / "out", shard)
    done = subprocess.run([sys.executable, "-c", MEASURE, folder], capture_output=True, text=True, check=True)
    taken, weights = map(int, done.stdout.split())
    largest = max(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert weights > 60e6
    assert taken < 1.1 * weights + largest
