"""What can go wrong on a user's machine: one line, an exit code, and nothing good is lost."""

import errno
import json
import os
import shutil
import socket
import subprocess

import pytest

from .conftest import SMALL, content, sets


@pytest.fixture
def run(home, tmp_path):
    """A copy of the finished run, free to be damaged."""
    return shutil.copytree(home, tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "--recipe", "absent.toml"], "no recipe at absent.toml"),
        (["data", "--recipe", "."], "Is a directory"),
        (["data", "--set", "data.sources=['file:absent']"], "no file or folder at absent"),
        (["data", "--set", "data.sources=['tatoeba']"], "did you mean 'tatoeba-ja'"),
        (["tokenizer", "--run", "absent"], "no manifest.json in absent/data: expected the output of 'yatsude data'"),
        (["train", "--run", "absent"], "expected the output of 'yatsude tokenizer'"),
        (["tune", "--run", "absent"], "no manifest.json in absent/train/model"),
        (["evaluate", "--run", "absent"], "no manifest.json in absent/data"),
        (["export", "--run", "absent"], "absent/train/model"),
        (["generate", "今日は", "absent"], "no model in absent"),
        (["chat", "absent"], "no model in absent"),
        (["serve", "absent", "--set", "serve.port=0"], "no model in absent"),
        (["info", "absent"], "absent"),
        (["run", "--minutes", "0"], "--minutes 0: expected more than 0"),
        (["run", "--set", "parallel.dp=2"], "[parallel] has 2 ranks: 'yatsude run' trains in one process"),
        (["run", "--set", "train.base=gone"], "train.base: 'yatsude run' begins from nothing"),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, list) else "",
)
def test_a_wrong_path_is_named_and_nothing_is_made(fails, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert said in fails(*words)
    assert os.listdir(tmp_path) == []


def test_a_run_folder_that_is_a_file_is_named(fails, tmp_path, write_corpus):
    corpus = write_corpus(tmp_path / "text.jsonl", 50)
    (tmp_path / "run").write_text("a file")
    line = fails("data", "--run", tmp_path / "run", *sets(f"data.sources=['file:{corpus}']"))
    assert str(tmp_path / "run") in line


BAD_TEXTS = {
    "empty": (b"", "no documents left of file:"),
    "no Japanese": (b"Only English here.\n" * 9, "not_japanese"),
    "one text": ("これは一つだけの文章です。".encode(), "nothing can be held out"),
    "Shift_JIS": ("これは古い文字コードの文章です。".encode("cp932"), "is not UTF-8: byte 0x"),
}


@pytest.mark.parametrize(("text", "said"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_bad_corpus_leaves_the_old_text(fails, run, tmp_path, text, said):
    path = tmp_path / "text.txt"
    path.write_bytes(text)
    before = content(run)
    assert said in fails("data", "--run", run, *sets(f"data.sources=['file:{path}']"))
    assert content(run) == before


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("tokenizer", "data/validation; run 'yatsude data' again"),
        ("train", "tokenizer/validation/shards.json is missing; run 'yatsude tokenizer'"),
        ("tune", "data/validation; run 'yatsude data' again"),
        ("evaluate", "data/validation/part-00000.parquet is missing; the manifest lists it"),
    ],
)
def test_a_run_of_an_earlier_version_says_what_to_run_and_stays(fails, run, verb, said):
    """Two parts, as they were before validation had one of its own."""
    shutil.rmtree(run / "data" / "validation")
    shutil.rmtree(run / "tokenizer" / "validation")
    before = content(run)
    assert said in fails(verb, "--run", run)
    assert content(run) == before


def test_an_unknown_key_of_a_recipe_names_the_nearest(fails, run, tmp_path):
    path, before = tmp_path / "recipe.toml", content(run)
    path.write_text("[train]\nsequence_lenght = 64\n")
    line = fails("train", "--run", run, "--recipe", path)
    assert "unknown key 'sequence_lenght' in [train]; did you mean 'sequence_length'?" in line
    path.write_text("[train\n")
    assert f"{path} is not valid TOML" in fails("train", "--run", run, "--recipe", path)
    path.write_text("[train.optimizer]\nrat = 1\n")
    assert "unknown key 'rat' in [train.optimizer]; did you mean 'rate'?" in fails(
        "train", "--run", run, "--recipe", path
    )
    assert content(run) == before


def test_other_settings_do_not_touch_a_finished_run(fails, run):
    before = content(run)
    line = fails("train", "--run", run, *sets(*SMALL, "train.seed=9"))
    assert "holds a run with other settings or other text (train.seed: 0 → 9); give another --run, or --restart" in line
    assert content(run) == before


@pytest.fixture
def full_disk(home, tmp_path, monkeypatch):
    """A run on a disk with so many bytes left: a real one where we may mount it."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=False, capture_output=True
        ).returncode
    )

    def prepare(left, without):
        shutil.copytree(home, place / "run")
        for name in without:
            shutil.rmtree(place / "run" / name)
        if mounted:
            (place / "filler").write_bytes(bytes(shutil.disk_usage(place).free - left))
        else:
            monkeypatch.setattr("yatsude.files._flush", no_space)
        return place / "run"

    yield prepare
    if mounted:
        subprocess.run(["umount", "-l", place], check=True)


def no_space(path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.mark.parametrize("verb", ["data", "tokenizer", "train", "export"])
@pytest.mark.parametrize("share", [0, 0.2, 0.9])
def test_a_full_disk_is_one_line_and_keeps_what_was_good(fails, full_disk, home, verb, share):
    """Room for this share of what the old output takes."""
    settings = {
        "data": [f"data.sources=['file:{home.parent / 'text.jsonl'}']"],
        "tokenizer": ["tokenizer.vocab_size=400"],
        "train": [*SMALL, "train.steps=400"],
        "export": [],
    }
    size = sum(map(len, content(home / verb).values()))
    run = full_disk(int(share * size), without=("train", "tune") if verb == "train" else ())
    before = content(run)
    assert "disk full" in fails(verb, "--run", run, *sets(*settings[verb]))
    after = content(run)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if ".part" in name or ".old" in name]


def test_a_port_in_use_is_named_before_the_model_is_read(fails, home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = fails("serve", home / "export", "--set", f"serve.port={port}")
    assert f"port {port} on 127.0.0.1 is in use" in line
    assert "--set serve.port=" in line


def corrupt(path):
    middle = path.stat().st_size // 2
    with path.open("r+b") as stream:
        stream.seek(middle)
        byte = stream.read(1)
        stream.seek(middle)
        stream.write(bytes([byte[0] ^ 1]))


def test_a_setting_that_is_allowed_to_change_is_said_and_logged(yatsude, run):
    changed = sets(*SMALL, "train.evaluation_documents=3", "train.steps=14")
    allow = ["--allow", "train.evaluation_documents", "--allow", "train.steps"]
    code, _, err = yatsude("train", "--run", run, *changed, *allow)
    assert code == 0, err
    assert "changed: train.steps: 12 → 14" in err
    lines = [json.loads(line) for line in (run / "train" / "log.jsonl").read_text().splitlines()]
    (told,) = [line["changed"] for line in lines if "changed" in line]
    assert told["train.steps"] == [12, 14]
    assert max(line["step"] for line in lines) == 14


def test_a_corrupt_checkpoint_is_passed_over_and_named(yatsude, run):
    shutil.rmtree(run / "train" / "model")
    newest = run / "train" / "checkpoints" / "step-00000012"
    corrupt(newest / "tensors.safetensors")
    code, _, err = yatsude("train", "--run", run, *sets(*SMALL))
    assert code == 0, err
    assert f"checkpoint {newest} cannot be used: tensors.safetensors is not what was written" in err
    assert f"resuming {run / 'train'} at step 8 of 12" in err
    assert (run / "train" / "model" / "model.safetensors").is_file()


def test_when_all_checkpoints_are_corrupt_that_is_one_line(fails, run):
    for path in (run / "train" / "checkpoints").rglob("tensors.safetensors"):
        corrupt(path)
    before = content(run)
    assert "none of the 2 checkpoints in" in fails("train", "--run", run, *sets(*SMALL))
    assert content(run) == before


@pytest.mark.parametrize("verb", ["generate", "serve"])
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", lambda path: os.truncate(path, path.stat().st_size // 2)),
        ("model.safetensors", lambda path: path.unlink()),
        ("config.json", lambda path: path.write_text("{")),
        (
            "config.json",
            lambda path: path.write_text(path.read_text().replace('"hidden_size": 32', '"hidden_size": 48')),
        ),
        ("tokenizer.json", lambda path: path.write_text("{}")),
    ],
    ids=["cut off", "missing", "no JSON", "another shape", "tokenizer"],
)
def test_a_damaged_model_is_named(fails, run, verb, name, damage):
    damage(run / "export" / name)
    words = ["generate", "今日は"] if verb == "generate" else ["serve", "--set", "serve.port=0"]
    line = fails(*words, run / "export")
    assert str(run / "export") in line


def test_damage_in_the_run_leaves_the_old_export(fails, run):
    os.truncate(run / "tune" / "model" / "model.safetensors", 1000)
    before = content(run / "export")
    assert str(run / "tune" / "model" / "model.safetensors") in fails("export", "--run", run)
    assert content(run / "export") == before


def test_a_prompt_longer_than_the_context_is_one_line(yatsude, fails, home):
    line = fails("generate", "今日は" * 200, home / "export")
    assert "tokens, the model reads 128" in line
    code, out, _ = yatsude("generate", "今日は" * 200, home / "export")
    assert (code, out) == (1, "")
