"""Training that goes on from a model: of every layout, with its licence, and resumed like any other."""

import dataclasses
import shutil

import pytest
import torch

from yatsude import manifest
from yatsude.checkpoint import hf
from yatsude.checkpoint.export import Origin, export
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.hf import InMemory
from yatsude.checkpoint.settings import ExportSettings, UpcycleSettings
from yatsude.checkpoint.upcycle import Upcycled
from yatsude.checkpoint.write import Precision, write
from yatsude.errors import CheckpointError, RecipeError
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.layout import in_layout
from yatsude.spec.presets import preset
from yatsude.spec.settings import ModelSettings
from yatsude.train.build import build
from yatsude.train.monitor import read_log

LAYOUTS = {
    "deepseek_v3": {"num_nextn_predict_layers": 1, "n_group": 2},
    "glm4_moe": {"qk_norm": True},
    "mixtral": {},
    "qwen3_moe": {"norm_topk_prob": True},
    "qwen2": {},
}


def folder_of(source, tokens, folder, licence="Some licence."):
    folder.mkdir()
    write(source, folder, Precision(torch.float32), 10**9)
    shutil.copyfile(tokens / "tokenizer.json", folder / "tokenizer.json")
    if licence:
        (folder / "LICENSE").write_text(licence)
    return folder


def model_of(layout):
    model = Transformer(in_layout(preset("pico", vocab_size=64), layout, **LAYOUTS[layout]))
    initialise(model, 0)
    return model


def train(base, tokens, folder, settings, **changes):
    settings = dataclasses.replace(settings, base=str(base), **changes)
    return build(ModelSettings(), settings, tokens, folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_trains_on_and_keeps_its_layout(tokens, tmp_path, settings, layout):
    base = folder_of(InMemory(model_of(layout)), tokens, tmp_path / "base")
    summary = train(base, tokens, tmp_path / "run", settings, sequence_balance=1e-2, router_z=1e-3)
    trained = hf.load(summary.model)
    assert trained.config == model_of(layout).config
    losses = [line["loss"] for line in read_log(tmp_path / "run" / "log.jsonl") if "load" in line]
    assert losses[-1] < losses[0]
    assert (summary.model / "bases" / "base" / "LICENSE").read_text() == "Some licence."
    assert [entry.source for entry in manifest.read(summary.model).licences] == ["model:base"]


def test_it_begins_with_the_weights_of_the_base(tokens, tmp_path, settings):
    first = train(folder_of(InMemory(model_of("qwen2")), tokens, tmp_path / "a"), tokens, tmp_path / "one", settings)
    assert manifest.read(first.model).stage == "train"
    train(first.model, tokens, tmp_path / "two", settings)
    losses = [[line["loss"] for line in read_log(tmp_path / run / "log.jsonl")] for run in ("one", "two")]
    assert losses[1][0] < losses[0][0]


def test_an_upcycled_model_trains_on(tokens, tmp_path, settings):
    dense = InMemory(model_of("qwen2"))
    mixture = Upcycled(dense, UpcycleSettings(experts=4, shared=1, ratio=0.5))
    summary = train(folder_of(mixture, tokens, tmp_path / "base"), tokens, tmp_path / "run", settings)
    assert hf.load(summary.model).config.n_routed_experts == 4


def test_a_base_with_another_tokenizer_is_refused(tokens, tmp_path, settings):
    base = folder_of(InMemory(model_of("qwen2")), tokens, tmp_path / "base")
    (base / "tokenizer.json").write_text('{"other": 1}')
    with pytest.raises(CheckpointError, match=r"not the tokenizer of .*yatsude extend"):
        train(base, tokens, tmp_path / "run", settings)


def test_a_base_without_licence_is_refused_before_the_training(tokens, tmp_path, settings):
    base = folder_of(InMemory(model_of("qwen2")), tokens, tmp_path / "base", licence="")
    with pytest.raises(CheckpointError, match="no LICENSE"):
        train(base, tokens, tmp_path / "run", settings)
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_shape_beside_a_base_is_refused(tokens, tmp_path, settings):
    base = folder_of(InMemory(model_of("qwen2")), tokens, tmp_path / "base")
    with pytest.raises(RecipeError, match="brings its own shape"):
        build(ModelSettings(hidden_size=64), dataclasses.replace(settings, base=str(base)), tokens, tmp_path / "run")


def test_licences_of_the_text_behind_a_base_go_along(tokens, tmp_path, settings):
    base = folder_of(InMemory(model_of("qwen2")), tokens, tmp_path / "base", licence="")
    manifest.write(base, "train", licences=[manifest.Licence(source="text", licence="CC-BY-4.0", attribution="A")])
    page = manifest.read(train(base, tokens, tmp_path / "run", settings).model)
    assert [entry.source for entry in page.licences] == ["text"]
    assert [entry.stage for entry in page.inputs] == ["tokenizer", "train"]


def test_a_base_keeps_its_licence_through_training_and_export(tokens, tmp_path, settings):
    """Twice: a model trained from one that was trained from it is under it too."""
    base = folder_of(InMemory(model_of("mixtral")), tokens, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: llama3.1\n---\n")
    first = train(base, tokens, tmp_path / "run", settings).model
    second = train(first, tokens, tmp_path / "run2", settings).model
    for model in (first, second):
        target = tmp_path / f"export-{model.parent.name}"
        export(
            Folder(model),
            target,
            ExportSettings(),
            Origin(models=(model,), inputs=(model,), stage="convert", tokenizer=tmp_path),
        )
        assert (target / "README.md").read_text().startswith("---\nlicense: llama3.1\n")
        assert (target / "LICENSE").read_text() == (target / "bases/base/LICENSE").read_text() == "Some licence."


def test_without_weight_the_layers_ahead_are_left_out(tokens, tmp_path, settings, capsys):
    base = folder_of(InMemory(model_of("deepseek_v3")), tokens, tmp_path / "base")
    model = train(base, tokens, tmp_path / "run", settings, mtp_weight=0.0).model
    assert Folder(model).config.num_nextn_predict_layers == 0
    said = capsys.readouterr().err
    assert "without its layers of multi-token prediction" in said.replace("\n", " ")
    assert "got no token" not in said


def test_a_window_limits_the_sequences(tokens, tmp_path, settings):
    model = Transformer(in_layout(preset("pico", vocab_size=64), "mistral", sliding_window=16))
    initialise(model, 0)
    base = folder_of(InMemory(model), tokens, tmp_path / "base")
    with pytest.raises(RecipeError, match="sequence_length = 32: the model looks 16 tokens back"):
        train(base, tokens, tmp_path / "run", settings)


def test_a_changed_base_is_another_run(tokens, tmp_path, settings):
    base = folder_of(InMemory(model_of("qwen2")), tokens, tmp_path / "base")
    train(base, tokens, tmp_path / "run", settings)
    changed = model_of("qwen2")
    changed.norm.weight.data[0] = 2
    hf.write(changed, base, torch.float32, 10**9)
    with pytest.raises(CheckpointError, match="other settings or other text"):
        train(base, tokens, tmp_path / "run", settings)
