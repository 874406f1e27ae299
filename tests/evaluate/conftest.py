import json

import pytest
import torch

from yatsude import manifest
from yatsude.checkpoint.hf import InMemory
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.presets import preset
from yatsude.tokenizer.build import build as build_tokenizer
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.train.build import finish

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PLACES = ["東京", "大阪", "京都", "札幌", "福岡"]


def rows(start, end):
    talks = [
        (f"明日は{n}時に{PLACES[n % 5]}へ友だちと行きます。", "dialogue", f"I go to {PLACES[n % 5]} at {n} tomorrow.")
        for n in range(start, end)
    ]
    manuals = [
        (f"オプション {n} を指定すると、結果を {n} 行ずつ表示する。\n既定値は {n} である。", "technical", None)
        for n in range(start, end)
    ]
    return talks + manuals


def write_split(folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("text", "domain", "english")
    table = pa.table({name: list(column) for name, column in zip(names, zip(*lines, strict=True), strict=True)})
    pq.write_table(table, folder / "part-00000.parquet")


def write_data(folder, held_out, validation=None):
    write_split(folder / "train", rows(0, 120))
    write_split(folder / "validation", validation or rows(300, 310))
    write_split(folder / "held_out", held_out)
    licence = manifest.Licence(source="mine", licence="CC0-1.0", attribution="nobody", url="https://example.org")
    manifest.write(folder, "data", licences=[licence])


def write_model(folder, tokens, stage="train", seed=0, **figures):
    vocabulary = json.loads((tokens / "held_out" / "shards.json").read_text())["vocab_size"]
    config = preset("pico", vocab_size=vocabulary, num_hidden_layers=3)
    model = Transformer(config)
    initialise(model, seed)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(seed))
    finish(InMemory(model), folder, stage, [tokens], figures, "")
    return model


def write_log(folder, losses, scores, documents=10):
    """A log as `train` writes it: one step a second, a score every ten seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step, loss in enumerate(losses, 1):
        lines.append({"step": step, "loss": loss, "tokens": step * 64, "seconds": step, "load": [[1.0] * 8]})
        if step % 10 == 0:
            bits = scores[step // 10 - 1]
            lines.append({"step": step, "loss": loss, "tokens": step * 64, "seconds": step, "bits_per_character": bits})
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9', encoding="utf-8")
    (folder / "recipe.toml").write_text(f"[train]\nevaluation_documents = {documents}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A run with data, tokenizer, a model of random weights and another as the tuned one."""
    run = tmp_path_factory.mktemp("run")
    write_data(run / "data", rows(200, 230))
    build_tokenizer(TokenizerSettings(vocab_size=400), run / "data", run / "tokenizer")
    write_model(run / "train" / "model", run / "tokenizer")
    write_model(run / "tune" / "model", run / "tokenizer", "tune", seed=1)
    return run
