"""What a folder may hold, and what it may not: each damage is one line that names file and tensor."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from yatsude.checkpoint import hf, verify, write
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.shard import Shard
from yatsude.errors import CheckpointError


def written(model, folder, shard_bytes=10**9):
    folder.mkdir(exist_ok=True)
    hf.write(model, folder, torch.float32, shard_bytes)
    return folder


def read_all(folder):
    source = Folder(folder)
    hf.fill(hf.blank(source.config, torch.float32), source)


def one_line(folder, *words):
    with pytest.raises(CheckpointError) as caught:
        read_all(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def changed(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_a_file_is_read_as_the_library_reads_it(model, tmp_path):
    path = written(model, tmp_path / "a") / "model.safetensors"
    ours, theirs = Shard(path), load_file(path)
    assert ours.entries.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours.read(name), tensor)
        if tensor.ndim == 2:
            assert torch.equal(ours.read(name, (1, 3)), tensor[1:3])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.bool]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=5,
    )
)
def test_any_file_of_the_library_is_read(tmp_path_factory, kinds):
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    tensors = {f"t{i}": torch.randint(0, 2, shape).to(dtype) for i, (dtype, shape) in enumerate(kinds)}
    save_file(tensors, path)
    shard = Shard(path)
    assert shard.entries.keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = shard.read(name)
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^[^\n]*x\.safetensors is damaged[^\n]*$"):
        Shard(path)


def test_a_header_that_claims_ten_gigabytes_is_not_believed(model, tmp_path):
    folder = written(model, tmp_path / "a")
    path = folder / "model.safetensors"
    path.write_bytes((10**10).to_bytes(8, "little") + path.read_bytes()[8:])
    one_line(folder, "model.safetensors is damaged", "claims 10,000,000,000 bytes")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}, "F33"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "cannot lie in bytes 0 to 8"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "begins at byte"),
        ({"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}, "cannot lie"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "accounts for"),
        ({"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}, "cannot lie"),
        ({"dtype": "F32"}, "its header says of x"),
        (7, "its header says of x: 7"),
    ],
)
def test_a_header_that_contradicts_the_file_is_refused(tmp_path, entry, words):
    text = json.dumps({"x": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 8)
    with pytest.raises(CheckpointError, match=words):
        Shard(path)


def test_a_name_that_would_break_a_line_is_refused(tmp_path):
    save_file({"a\nb": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"a tensor is called 'a\\nb'"):
        Shard(tmp_path / "x.safetensors")


def test_a_number_that_is_none_names_file_and_tensor(model, tmp_path):
    folder = written(model, tmp_path / "a")

    def break_one(tensors):
        tensors["model.layers.1.mlp.experts.3.up_proj.weight"][2, 5] = torch.nan

    changed(folder, break_one)
    one_line(folder, "model.safetensors: model.layers.1.mlp.experts.3.up_proj.weight holds numbers that are not finite")


def test_an_extra_tensor_is_named(model, tmp_path):
    folder = written(model, tmp_path / "a")
    changed(folder, lambda tensors: tensors.update({"model.layers.0.lora_A.weight": torch.ones(2, 2)}))
    one_line(folder, "unknown model.layers.0.lora_A.weight")


def test_rotary_frequencies_of_old_files_follow_from_the_config(build, tmp_path):
    folder = written(build(model_type="llama"), tmp_path / "a")
    changed(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(12)}))
    assert hf.load(folder).config.model_type == "llama"


def test_a_tensor_in_two_files_is_named(model, tmp_path):
    folder = written(model, tmp_path / "a", 50_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    double = load_file(folder / files[0])
    save_file({**double, **load_file(folder / files[1])}, folder / files[1])
    one_line(folder, f"stands in {files[0]} and in {files[1]}")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors", "model.bin", "", 3])
def test_an_index_may_name_files_of_its_folder_alone(model, tmp_path, name):
    folder = written(model, tmp_path / "a", 50_000)
    index = folder / "model.safetensors.index.json"
    page = json.loads(index.read_text())
    page["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(page))
    one_line(folder, "model.safetensors.index.json")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_never_opened(model, tmp_path, name):
    folder = written(model, tmp_path / "a")
    (folder / "model.safetensors").rename(folder / name)
    one_line(folder, f"holds {name}", "never opened", "safetensors")


def test_a_config_that_contradicts_the_tensors_names_both(model, tmp_path):
    folder = written(model, tmp_path / "a")
    page = json.loads((folder / "config.json").read_text())
    for changes, words in (
        ({"num_hidden_layers": 2}, ["unknown model.layers.2."]),
        ({"num_hidden_layers": 4}, ["missing model.layers.3."]),
        ({"num_hidden_layers": 10**9}, ["num_hidden_layers = 1000000000: expected at most 10000"]),
        ({"n_routed_experts": 16}, ["missing model.layers.1.mlp.experts.10."]),
        ({"vocab_size": 301}, ["model.embed_tokens.weight has shape (300, 32), expected (301, 32)"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["quant_method = 'gptq'"]),
        ({"quantization_config": {"quant_method": "fp8"}}, ["weight_block_size = None"]),
    ):
        (folder / "config.json").write_text(json.dumps({**page, **changes}))
        one_line(folder, *words)


def test_layers_that_predict_ahead_may_be_missing_as_a_whole_but_not_in_part(build, tmp_path, capsys):
    folder = written(build(num_nextn_predict_layers=1), tmp_path / "a")
    changed(folder, lambda tensors: tensors.pop("model.layers.3.eh_proj.weight"))
    one_line(folder, "missing model.layers.3.eh_proj.weight")
    changed(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.3." in name])
    assert hf.load(folder).config.num_nextn_predict_layers == 0
    assert "has no layers of multi-token prediction" in capsys.readouterr().err


def test_a_tied_head_may_be_repeated_but_not_differ(build, tmp_path):
    folder = written(build(tie_word_embeddings=True), tmp_path / "a")
    changed(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    hf.load(folder)
    changed(folder, lambda tensors: tensors["lm_head.weight"][0].add_(1))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        hf.load(folder)


def test_copies_are_compared_before_anything_is_written(build, tmp_path):
    folder = written(build(num_nextn_predict_layers=1), tmp_path / "a")
    changed(folder, lambda tensors: tensors["model.layers.3.embed_tokens.weight"].mul_(3))
    (tmp_path / "b").mkdir()
    for act in (
        lambda: verify.check(folder),
        lambda: verify.verify(folder, Folder(folder)),
        lambda: write.write(Folder(folder), tmp_path / "b", write.Precision(torch.float32), 10**9),
    ):
        with pytest.raises(CheckpointError, match="of which it is a copy"):
            act()


def test_copies_may_be_left_out_and_are_written_again(build, tmp_path):
    folder = written(build(num_nextn_predict_layers=1), tmp_path / "a")
    copies = ("model.layers.3.embed_tokens.weight", "model.layers.3.shared_head.head.weight")
    changed(folder, lambda tensors: [tensors.pop(name) for name in copies])
    (tmp_path / "b").mkdir()
    write.write(Folder(folder), tmp_path / "b", write.Precision(torch.float32), 10**9)
    tensors = load_file(tmp_path / "b" / "model.safetensors")
    assert torch.equal(tensors[copies[0]], tensors["model.embed_tokens.weight"])
    assert torch.equal(tensors[copies[1]], tensors["lm_head.weight"])


def test_an_index_that_is_not_true_is_named(model, tmp_path):
    folder = written(model, tmp_path / "a", 50_000)
    index = folder / "model.safetensors.index.json"
    page = json.loads(index.read_text())
    page["weight_map"]["model.ghost.weight"] = page["weight_map"]["model.norm.weight"]
    index.write_text(json.dumps(page))
    one_line(folder, "model.ghost.weight in model-0")
    index.unlink()
    one_line(folder, "but no model.safetensors.index.json", "copy that file too")


def test_a_head_of_multi_token_prediction_of_its_own_is_refused(build, tmp_path):
    folder = written(build(num_nextn_predict_layers=1), tmp_path / "a")
    changed(folder, lambda tensors: tensors["model.layers.3.shared_head.head.weight"][0].add_(1))
    with pytest.raises(CheckpointError, match=r"model\.layers\.3\.shared_head\.head\.weight differs from lm_head"):
        hf.load(folder)
