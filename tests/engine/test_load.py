import json

import pytest
import torch
import transformers

from yatsude import manifest
from yatsude.checkpoint import hf
from yatsude.checkpoint.write import Precision, write
from yatsude.engine import load as loading
from yatsude.engine.load import faster, load
from yatsude.engine.settings import EngineSettings, SamplingSettings
from yatsude.errors import CheckpointError, DataError, MachineError, RecipeError
from yatsude.tokenizer.special import Special
from yatsude.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path, make_model, tokenizer):
    model = make_model(torch.float32)
    hf.write(model, tmp_path, dtype=torch.float32, shard_bytes=1 << 30)
    tokenizer.save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_an_exported_folder_answers_in_the_precision_set(folder, precision, dtype):
    engine = load(folder, EngineSettings(precision=precision, device="cpu"))
    assert engine.runner.memory.first_LBSX.dtype == engine.runner.model.lm_head.weight.dtype == dtype
    prompt = engine.tokenizer.encode_chat([{"role": "user", "content": "猫"}])
    answer = engine.generate([prompt], SamplingSettings(temperature=0, max_tokens=5, ignore_end=True))[0]
    assert len(answer.tokens) == 5


def test_fp8_stays_so_in_memory(tmp_path, make_model, tokenizer):
    write(hf.InMemory(make_model(torch.float32)), tmp_path, Precision(torch.float8_e4m3fn, (16, 16)), 1 << 30)
    tokenizer.save(tmp_path)
    engine = load(tmp_path, EngineSettings(precision="fp8", device="cpu"))
    assert engine.runner.model.layers[1].mlp.experts.held("down_proj")[0].dtype == torch.float8_e4m3fn
    prompt = engine.tokenizer.encode_chat([{"role": "user", "content": "猫"}])
    ours, plain = (
        one.generate([prompt], SamplingSettings(temperature=0, max_tokens=8, ignore_end=True))[0].tokens
        for one in (engine, load(tmp_path, EngineSettings(precision="bf16", device="cpu")))
    )
    assert ours == plain


def test_a_model_from_elsewhere_answers_under_its_own_template(tmp_path, make_model, tokenizer):
    """Its words for system, user and assistant are plain text here, and it has no token in front of a text."""
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    hf.write(make_model(torch.float32), tmp_path, dtype=torch.float32, shard_bytes=1 << 30)
    Tokenizer(tokenizer.commands, Special(bos=None, eos="<|end|>", pad=None, template=template)).save(tmp_path)
    engine = load(tmp_path, EngineSettings(precision="fp32", device="cpu"))
    prompt = engine.tokenizer.encode_chat([{"role": "user", "content": "猫"}])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert prompt == theirs(f"user: 猫<|end|>{'assistant: '}")["input_ids"]
    answer = engine.generate([prompt], SamplingSettings(temperature=0, max_tokens=20, ignore_end=True))[0]
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    peer.generation_config.eos_token_id = None
    told = peer.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)
    assert list(answer.tokens) == told[0, len(prompt) :].tolist()


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(folder):
    page = json.loads((folder / "tokenizer.json").read_text())
    page["added_tokens"] += [
        {**page["added_tokens"][0], "id": 1000 + number, "content": f"<|more {number}|>"} for number in range(40)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(page))
    with pytest.raises(CheckpointError, match="tokens, the model rows for 320"):
        load(folder)


def test_auto_measures_and_says_what_it_found(folder, capsys):
    load(folder, EngineSettings(device="cpu"))
    told = capsys.readouterr().err
    assert "fp32" in told
    assert "bf16" in told
    assert "tokens/s" in told


def test_loading_leaves_gradients_as_they_were(folder):
    load(folder, EngineSettings(device="cpu"))
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert (torch.ones(1, requires_grad=True) * 2).requires_grad


@pytest.mark.parametrize(("fp32_s", "bf16_s", "chosen"), [(1.0, 0.5, "bf16"), (1.0, 0.99, "fp32"), (1.0, 2.0, "fp32")])
def test_bf16_is_chosen_only_where_it_is_clearly_faster(make_model, monkeypatch, fp32_s, bf16_s, chosen):
    models = {"fp32": make_model(torch.float32), "bf16": make_model(torch.bfloat16)}
    times = {id(models["fp32"]): fp32_s, id(models["bf16"]): bf16_s}
    monkeypatch.setattr(loading, "step_seconds", lambda model, rows: iter([times[id(model)]] * 3))
    model, reason = faster(models)
    assert model is models[chosen]
    assert reason.startswith(chosen)


def test_what_is_missing_is_named(tmp_path, folder):
    with pytest.raises(CheckpointError, match=r"no model in .*nowhere; 'yatsude train' and 'yatsude export' write one"):
        load(tmp_path / "nowhere")
    (folder / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(CheckpointError, match="safetensors"):
        load(folder, EngineSettings(precision="fp32"))


def test_what_cannot_be_done_is_named(folder, monkeypatch):
    with pytest.raises(RecipeError, match=r"4096.*128"):
        load(folder, EngineSettings(precision="fp32", context=4096))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match="no GPU"):
        load(folder, EngineSettings(device="cuda"))


def test_weights_altered_at_equal_size_are_not_loaded(folder):
    manifest.write(folder, "export")
    load(folder, EngineSettings(precision="fp32"))
    (weights,) = folder.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r"is not what was written.*run 'yatsude export' again"):
        load(folder, EngineSettings(precision="fp32"))
