"""The verbs that go from folder to folder, through the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from tokenizers import pre_tokenizers

from yatsude import manifest
from yatsude.checkpoint import hf
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.chat import SPECIAL_TOKENS
from yatsude.spec.layout import in_layout
from yatsude.spec.presets import preset

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PLAIN = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def folder_of(place, model_type, seed=0, **changes):
    """A model as it comes from elsewhere, with a byte-level tokenizer and a licence."""
    model = Transformer(in_layout(preset("pico", vocab_size=300), model_type, **changes))
    initialise(model, seed)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
    place.mkdir()
    hf.write(model, place, torch.float32, 100_000)
    words = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    page = {
        "pre_tokenizer": BYTES,
        "decoder": BYTES,
        "added_tokens": [{"id": n, "content": word, "special": True, **PLAIN} for n, word in enumerate(SPECIAL_TOKENS)],
        "model": {"type": "BPE", "vocab": {word: n for n, word in enumerate(words)}, "merges": []},
    }
    (place / "tokenizer.json").write_text(json.dumps(page))
    (place / "LICENSE").write_text("Anybody may.")
    return place


@pytest.fixture
def mixture(tmp_path):
    return folder_of(tmp_path / "mixture", "deepseek_v3")


@pytest.mark.parametrize("dtype", ["bfloat16", "float8"])
def test_convert_then_verify_against_the_source(yatsude, mixture, tmp_path, dtype):
    target = tmp_path / "small"
    code, _, err = yatsude("convert", mixture, target, "--set", f"export.dtype={dtype}")
    assert code == 0, err
    assert "verified: 49 tensors and the logits of what was written, largest difference 0.0e+00" in err
    code, _, err = yatsude("verify", target, "--against", mixture)
    assert code == 0, err
    for words in ("49 tensors", "files are what the manifest says", "checksum of the tensors", "rounding moves logits"):
        assert words in err
    assert "weights are equal, other files are not: chat_template.jinja, generation_config.json" in err
    assert manifest.read(target).counts["tensor_difference"] == 0
    assert (target / "bases" / "mixture" / "LICENSE").read_text() == "Anybody may."


def test_weights_beside_the_model_are_named(yatsude, mixture):
    shutil.copyfile(next(mixture.glob("*.safetensors")), mixture / "adapter_model.safetensors")
    (mixture / "pytorch_model.bin").write_bytes(b"x")
    code, _, err = yatsude("verify", mixture)
    assert code == 0, err
    assert "no part of the model, adapter_model.safetensors, pytorch_model.bin; they are left aside" in err


def test_verify_finds_another_model(fails, mixture, tmp_path):
    other = folder_of(tmp_path / "other", "deepseek_v3", seed=1)
    assert "is not the model it was written from: weights differ by" in fails("verify", mixture, "--against", other)


def test_a_folder_of_our_own_that_was_altered_is_named(yatsude, fails, mixture, tmp_path):
    yatsude("convert", mixture, tmp_path / "a")
    path = tmp_path / "a" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "model.safetensors is not what was written" in fails("verify", tmp_path / "a")


def test_a_model_without_licence_needs_its_text(yatsude, fails, mixture, tmp_path):
    (mixture / "LICENSE").unlink()
    assert "--i-have-the-licence FILE" in fails("convert", mixture, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / "text").write_text("They said yes.")
    code, _, err = yatsude("convert", mixture, tmp_path / "a", "--i-have-the-licence", tmp_path / "text")
    assert code == 0, err
    assert (tmp_path / "a" / "bases" / "mixture" / "LICENSE").read_text() == "They said yes."


def test_upcycle(yatsude, fails, tmp_path):
    dense = folder_of(tmp_path / "dense", "qwen3")
    code, _, err = yatsude("upcycle", dense, tmp_path / "out", "--set", "upcycle.experts=4")
    assert code == 0, err
    assert "qwen3_moe: 4 experts of width 64, 2 a token, 0 shared" in err
    assert "from those of the dense model" in err
    assert hf.load(tmp_path / "out").config.n_routed_experts == 4
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Its experts began as layers of dense, 50% of each drawn anew." in card
    assert "mixtures already" in fails("upcycle", tmp_path / "out", tmp_path / "again")


def test_merge(yatsude, fails, mixture, tmp_path):
    other = folder_of(tmp_path / "other", "deepseek_v3", seed=1)
    code, _, err = yatsude("merge", tmp_path / "out", mixture, other, "--weight", 3, "--weight", 1)
    assert code == 0, err
    ours, a, b = (hf.load(p, torch.float32).norm.weight for p in (tmp_path / "out", mixture, other))
    torch.testing.assert_close(ours, (0.75 * a + 0.25 * b).bfloat16().float())
    assert {p.name for p in (tmp_path / "out" / "bases").iterdir()} == {"mixture", "other"}
    assert "mixture exists" in fails("merge", mixture, other)
    dense = folder_of(tmp_path / "dense", "qwen3")
    assert "the models differ in model_type" in fails("merge", tmp_path / "none", mixture, dense)
    (other / "tokenizer.json").unlink()
    assert "rows of the models may mean other tokens" in fails("merge", tmp_path / "none", mixture, other)


def test_extend(yatsude, fails, mixture, tmp_path):
    longer = tmp_path / "longer"
    longer.mkdir()
    page = json.loads((mixture / "tokenizer.json").read_text())
    page["model"]["vocab"]["ab"] = 262
    page["model"]["merges"] = [["a", "b"]]
    (longer / "tokenizer.json").write_text(json.dumps(page))
    code, _, err = yatsude("extend", mixture, longer, tmp_path / "out", "--set", "export.dtype=float32")
    assert code == 0, err
    assert "263 tokens: 262 keep a row, 1 begin as the mean of their pieces; 38 rows of the model" in err
    assert hf.load(tmp_path / "out").config.vocab_size == 263


def test_a_killed_conversion_leaves_a_whole_folder_or_none(mixture, tmp_path):
    script = "from yatsude.cli.main import main; main()"
    target = tmp_path / "out"
    convert = [sys.executable, "-c", script, "convert", str(mixture), str(target)]
    for wait in (0.0, 1.2, 1.6, 2.0, 2.4, 3.0):
        process = subprocess.Popen(convert, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.kill()
        process.wait()
        if target.exists():
            hf.load(target)
            manifest.check(target, manifest.read(target))
            shutil.rmtree(target)
    assert subprocess.run(convert, stderr=subprocess.DEVNULL, check=False).returncode == 0
    manifest.check(target, manifest.read(target))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_interrupted_conversion_says_so(mixture, tmp_path):
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from yatsude.cli.main import main; main()"
    words = ["convert", str(mixture), str(tmp_path / "out"), "--set", "export.shard_bytes=2000"]
    process = subprocess.Popen([sys.executable, "-c", script, *words], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".out.*")) and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode:  # it may have been done already
        assert process.returncode == 130
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
