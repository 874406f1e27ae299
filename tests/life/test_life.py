"""From text to chat, as a user does it: one command, stopped once on the way, then served and asked."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.request

import openai
import pytest
import torch

from yatsude import manifest
from yatsude.checkpoint import hf

PROGRAM = "from yatsude.cli.main import main; main()"
SENTENCES = 2500
RECIPE = """
[data]
sources = ["file:{corpus}"]
validation_fraction = 0.04
held_out_fraction = 0.04

[tokenizer]
vocab_size = 1024

[model]
preset = "{preset}"
max_position_embeddings = 256

[train]
sequence_length = 64
sequences_per_step = 8
evaluations = 4
evaluation_documents = 50
checkpoint_steps = 20

[tune]
sequence_length = 128
sequences_per_step = 8
evaluations = 2
evaluation_documents = 50
"""
STAGES = ("text", "tokenizer", "measuring this machine", "training", "tuning", "measuring the model", "export")
GIB = 1 << 30


def command(*words):
    return [sys.executable, "-c", PROGRAM, *map(str, words)]


def titles(said):
    return re.findall(r"── (.+) ──", said)


class Home:
    """A folder with a corpus, a recipe and a run."""

    def __init__(self, root, write_corpus):
        self.run, self.recipe = root / "run", root / "recipe.toml"
        corpus = write_corpus(root / "text.jsonl", SENTENCES)
        self.recipe.write_text(RECIPE.format(corpus=corpus, preset="nano"), encoding="utf-8")

    def start(self):
        words = ("run", "--minutes", 0.2, "--no-serve", "--recipe", self.recipe, "--run", self.run)
        return subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True)

    def steps(self):
        log = self.run / "train" / "log.jsonl"
        return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.fixture(scope="module")
def home(tmp_path_factory, write_corpus):
    """The whole life, with a Ctrl-C in the middle of training; what each part said is kept."""
    home = Home(tmp_path_factory.mktemp("life"), write_corpus)
    first, end = home.start(), time.monotonic() + 120
    while home.steps() < 5 and first.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, home.said_first = first.communicate(timeout=120)
    home.code_first = first.returncode
    second = home.start()
    _, home.said = second.communicate(timeout=240)
    assert second.returncode == 0, home.said
    return home


def test_ctrl_c_stops_with_one_line_and_the_same_command_goes_on(home):
    assert home.code_first == 130, home.said_first
    assert titles(home.said_first) == list(STAGES[:4])
    assert re.search(r"^stopped at step \d+ of \d+; the same command goes on", home.said_first.splitlines()[-1])
    assert titles(home.said) == list(STAGES[3:])
    assert "model and run as chosen before" in home.said
    assert re.search(r"resuming \S+ at step \d+ of \d+", home.said)
    assert f"next: yatsude serve {home.run / 'export'}" in home.said


def test_every_choice_is_told_with_its_reason(home):
    assert re.search(r"model nano, as set by hand: [\d,]+ tokens/s", home.said_first)
    assert re.search(r"[\d,]+ steps of \d+ sequences: [\d,]+ tokens", home.said_first)
    assert re.search(r"precision: .*GFLOP/s", home.said_first)


def test_every_stage_wrote_a_folder_that_explains_itself(home):
    for name, stage in {
        "data": "data",
        "tokenizer": "tokenizer",
        "train/model": "train",
        "tune/model": "tune",
        "evaluate": "evaluate",
        "export": "export",
    }.items():
        page = manifest.read(home.run / name, stage)
        manifest.check(home.run / name, page)
        assert [licence.source.partition(":")[0] for licence in page.licences] == ["file"]
    assert not list(home.run.rglob(".*"))


def test_the_export_names_every_stage_behind_it(home):
    names = {path.name.partition("-")[0] for path in (home.run / "export" / "provenance").iterdir()}
    assert names == {"evaluate", "tune", "train", "tokenizer", "data"}


def test_the_model_knows_its_text(home):
    """A token holds three characters: who knew nothing would need more than 3 bits for each of them."""
    lines = [json.loads(line) for line in (home.run / "train" / "log.jsonl").read_text().splitlines()]
    scores = [line["bits_per_character"] for line in lines if "bits_per_character" in line]
    figures = json.loads((home.run / "evaluate" / "figures.json").read_text())
    assert len(scores) == 4
    assert scores[-1] < 1.05 * scores[0]  # a few steps behind a bigram start gain little on a busy machine
    assert 0 < figures["held_out_bits_per_character"] < 1.5
    assert {"3-gram_bits_per_character", "4-gram_bits_per_character", "5-gram_bits_per_character"} <= figures.keys()


def test_the_report_opens_offline_and_shows_the_ngrams(home):
    page = (home.run / "evaluate" / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert all(word in page for word in ("3-gram", "4-gram", "5-gram", "Kneser-Ney", "<svg"))
    assert not re.search(r'<script|(src|href)="https?:|@import|url\(http', page)


def test_the_same_command_again_has_nothing_to_do(home):
    start = time.monotonic()
    process = home.start()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert titles(said) == []
    assert time.monotonic() - start < 20  # 4 s on a quiet machine, the loading of torch


def test_transformers_reads_the_export(home):
    transformers = pytest.importorskip("transformers")
    folder = home.run / "export"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "日曜日の朝早く、田中さんは"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    ours = hf.load(folder, torch.float32)
    with torch.inference_mode():
        one, other = theirs(ids).logits, ours.logits(ours(ids))[..., : tokenizer.vocab_size]
    assert (one.argmax(-1)[..., : other.shape[-1]] == other.argmax(-1)).float().mean() > 0.9
    answer = theirs.generate(ids, max_new_tokens=8, do_sample=False)
    assert answer.shape[1] > ids.shape[1]


@pytest.fixture(scope="module")
def server(home):
    words = command("serve", home.run / "export", "--set", "serve.port=0")
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        yield found[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_the_openai_client_gets_answers(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        asked = {"model": "export", "messages": [{"role": "user", "content": "先週の夕方、鈴木先生は"}], "seed": 1}
        whole = client.chat.completions.create(**asked, max_tokens=40)
        assert whole.choices[0].message.content
        assert whole.usage.completion_tokens > 0
        parts = client.chat.completions.create(**asked, max_tokens=40, stream=True)
        text = "".join(part.choices[0].delta.content or "" for part in parts)
        assert text == whole.choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="the model reads 256"):
            client.chat.completions.create(model="export", messages=[{"role": "user", "content": "長い話" * 400}])


def test_the_chat_page_is_there(server):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert "<textarea" in opener.open(f"{server}/").read().decode()


def test_the_whole_life_fits_into_small_memory(home):
    """Peak of the largest process that was waited for so far, in KiB on Linux; make run promises under 4 GiB."""
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 4 * GIB
