import json

import pytest
import torch

from yatsude import manifest
from yatsude.checkpoint import hf, verify, write
from yatsude.checkpoint.export import Origin, export
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.settings import ExportSettings
from yatsude.errors import CheckpointError, RecipeError, YatsudeError
from yatsude.manifest import Licence
from yatsude.spec import chat
from yatsude.tokenizer.tokenizer import Tokenizer

MESSAGES = [{"role": "user", "content": "こんにちは"}]


def exported(model, tokenizer, tmp_path, settings=None, **kwargs):
    """The folder, and what was compared; the model lies in a folder as training leaves it."""
    folder, source = tmp_path / "exported", tmp_path / "model"
    source.mkdir(exist_ok=True)
    hf.write(model, source, torch.float32, 10**9)
    manifest.write(source, "train", inputs=[tokenizer])
    origin = {"inputs": (tokenizer,), "figures": {"bits_per_character": 3.25}, **kwargs}
    settings = settings or ExportSettings(name="Test 1")
    return folder, export(Folder(source), folder, settings, Origin(models=(source,), tokenizer=tokenizer, **origin))


def test_the_folder_holds_what_other_programs_need(model, tokenizer, tmp_path):
    folder, check = exported(model, tokenizer, tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "NOTICE"}
    assert names >= {"generation_config.json", "chat_template.jinja", "README.md", "manifest.json", "provenance"}
    page = json.loads((folder / "generation_config.json").read_text())
    assert page["eos_token_id"] == [0, 2]
    assert page["do_sample"] is True
    assert (folder / "chat_template.jinja").read_text() == chat.CHAT_TEMPLATE
    assert check.tensor_difference == check.logit_difference == 0
    assert check.tensors == 3 * 8 * 2 + 3 + 2 * (3 + 2) + 3 * 7 + 3


def test_the_manifest_carries_checksums_licences_and_the_comparison(model, tokenizer, tmp_path):
    folder, check = exported(model, tokenizer, tmp_path, recipe_sha256="ab" * 32)
    page = manifest.read(folder, "export")
    manifest.check(folder, page)
    verify.check(folder)
    assert page.counts["logit_difference"] == 0
    assert page.counts["bits_per_character"] == 3.25
    assert page.counts["parameters"] == check.parameters
    assert [entry.source for entry in page.licences] == ["mine"]
    assert page.inputs[0].stage == "tokenizer"


def test_the_card_names_sources_figures_and_stages(model, tokenizer, tmp_path):
    folder, _ = exported(model, tokenizer, tmp_path)
    card = (folder / "README.md").read_text()
    for words in (
        "license: apache-2.0",
        "CC-BY-4.0",
        "Somebody",
        "3.25",
        "| tokenizer |",
        "vllm serve",
        "routed experts",
    ):
        assert words in card
    assert "94 % less" in card
    assert "Credit: Somebody" in (folder / "NOTICE").read_text()
    assert len(list((folder / "provenance").iterdir())) == 1


@pytest.mark.filterwarnings("ignore")
def test_transformers_chats_with_the_folder(model, tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder, _ = exported(model, tokenizer, tmp_path, settings=ExportSettings(dtype="float32"))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    text = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    mine = Tokenizer.load(folder)
    assert text == mine.decode(mine.encode_chat(MESSAGES), skip_special=False)
    prompt = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert peer.generation_config.eos_token_id == [0, 2]
    with torch.no_grad():
        ours = model.logits(model(prompt["input_ids"]))
        torch.testing.assert_close(ours, peer(**prompt).logits, rtol=0, atol=1e-5)
    answer = peer.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] <= prompt["input_ids"].shape[1] + 4


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Licence(source="x", licence="", attribution="somebody"), "'x' has no licence"),
        (Licence(source="x", licence="Unknown", attribution="somebody"), "'x' has no licence"),
        (Licence(source="x", licence="CC-BY-2.0", attribution=" "), "names nobody to credit"),
    ],
)
def test_a_source_without_licence_or_credit_stops_the_export(model, tokenizer, tmp_path, source, words):
    manifest.write(tokenizer, "tokenizer", licences=[source])
    with pytest.raises(CheckpointError, match=words):
        exported(model, tokenizer, tmp_path)
    assert not (tmp_path / "exported").exists()


def test_a_model_with_no_recorded_source_is_not_exported(model, tokenizer, tmp_path):
    with pytest.raises(CheckpointError, match="no source"):
        exported(model, tokenizer, tmp_path, inputs=())


def test_public_domain_needs_no_credit(model, tokenizer, tmp_path):
    manifest.write(tokenizer, "tokenizer", licences=[Licence(source="x", licence="CC0-1.0", attribution="")])
    exported(model, tokenizer, tmp_path)


def test_a_failed_comparison_leaves_the_old_folder(model, tokenizer, tmp_path, monkeypatch):
    folder, _ = exported(model, tokenizer, tmp_path)
    before = (folder / "manifest.json").read_bytes()

    def damaged(source, *args):
        keep = source.read
        source.read = lambda name, rows=None: keep(name, rows) + (1 if name == "model.norm.weight" else 0)
        written(source, *args)
        source.read = keep

    written = write.write
    monkeypatch.setattr(write, "write", damaged)
    with pytest.raises(CheckpointError, match=r"is not the model it was written from: weights differ by 1"):
        exported(model, tokenizer, tmp_path)
    assert (folder / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_model_with_broken_weights_is_not_exported(model, tokenizer, tmp_path):
    model.norm.weight.data[0] = torch.nan
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds numbers that are not finite"):
        exported(model, tokenizer, tmp_path)


def test_fp8_in_blocks_of_its_own_passes_unchanged(model, tokenizer, tmp_path):
    source = tmp_path / "eight"
    source.mkdir()
    write.write(hf.InMemory(model), source, write.Precision(torch.float8_e4m3fn, (16, 16)), 10**9)
    manifest.write(source, "train", inputs=[tokenizer])
    origin = Origin(models=(source,), tokenizer=tokenizer, inputs=(tokenizer,))
    figures = export(Folder(source), tmp_path / "out", ExportSettings(dtype="float8"), origin)
    assert figures.rounding_difference == 0
    assert figures.tensors_sha256 == verify.checksum(Folder(source))


def test_a_tokenizer_that_does_not_fit_is_named(build, tokenizer, tmp_path):
    with pytest.raises(CheckpointError, match="262 tokens, the model 200"):
        exported(build(vocab_size=200), tokenizer, tmp_path)
    (tokenizer / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        exported(build(), tokenizer, tmp_path)
    (tokenizer / "tokenizer.json").unlink()
    with pytest.raises(YatsudeError, match=r"no tokenizer\.json"):
        exported(build(), tokenizer, tmp_path)


def test_greedy_and_foreign_tokenizers(build, tokenizer, tmp_path):
    page = json.loads((tokenizer / "tokenizer.json").read_text())
    page["added_tokens"] = []
    (tokenizer / "tokenizer.json").write_text(json.dumps(page))
    folder, _ = exported(build(eos_token_id=7), tokenizer, tmp_path, settings=ExportSettings(temperature=0))
    page = json.loads((folder / "generation_config.json").read_text())
    assert page["eos_token_id"] == [7]
    assert page["do_sample"] is False
    assert not (folder / "chat_template.jinja").exists()


@pytest.mark.parametrize("changes", [{"shard_bytes": 0}, {"top_p": 0.0}, {"temperature": -1.0}, {"licence": " "}])
def test_settings_refuse_nonsense(changes):
    with pytest.raises(RecipeError):
        ExportSettings(**changes)
