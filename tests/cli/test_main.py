"""Help, unknown words, exit codes, and Ctrl-C."""

import json
import signal
import subprocess
import sys
import time

import pytest
import typer

from yatsude.cli import options
from yatsude.cli.main import EXTRAS, VERBS, _reported

from .conftest import SMALL, TUNE, sets, start

HELP = """
import sys, time
from yatsude.cli.main import VERBS, application
command = application()
for words in ([], *([verb] for verb in VERBS)):
    try:
        command([*words, "--help"])
    except SystemExit as stop:
        assert not stop.code, words
print(*[name for name in HEAVY if name in sys.modules], file=sys.stderr)
"""


def test_every_verb_explains_itself_at_once_and_loads_nothing_heavy():
    heavy = (*EXTRAS, "transformers", "openai", "jinja2")
    start = time.monotonic()
    script = HELP.replace("HEAVY", repr(heavy))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == []
    assert time.monotonic() - start < 8  # 0.5 s on a quiet machine
    assert done.stdout.count("Usage: ") == len(VERBS) + 1


def test_without_a_verb_there_is_help(yatsude):
    code, out, err = yatsude()
    assert code == 2
    assert all(f"\n  {verb} " in out + err for verb in VERBS)


@pytest.mark.parametrize(
    ("stop", "options", "said"),
    [
        (KeyboardInterrupt(), {}, "stopped"),
        (KeyboardInterrupt("stopped at step 1"), {}, "stopped at step 1; the same command goes on from here"),
        (
            KeyboardInterrupt("stopped at step 1"),
            {"restart": True},
            "stopped at step 1; the same command without --restart goes on from here",
        ),
    ],
)
def test_a_stop_says_how_to_go_on_only_where_one_can(capsys, stop, options, said):
    def command(**_):
        raise stop

    with pytest.raises(typer.Exit) as left:
        _reported(command)(**options)
    assert left.value.exit_code == 130
    assert capsys.readouterr().err == f"{said}\n"


def test_version(yatsude):
    code, out, _ = yatsude("--version")
    assert code == 0
    assert out.startswith("yatsude 0.")


def test_an_unknown_verb_names_the_nearest(yatsude):
    code, _, err = yatsude("trian")
    assert code == 2
    assert "No such command 'trian'. Did you mean 'train'?" in err


def test_an_unknown_option_names_the_nearest(yatsude):
    code, _, err = yatsude("train", "--recipee", "a.toml")
    assert code == 2
    assert "--recipe" in err


@pytest.mark.parametrize("verb", [verb for verb in VERBS[: VERBS.index("info")] if verb not in ("chat", "generate")])
def test_an_unknown_key_of_any_table_is_told_before_anything_begins(fails, tmp_path, verb):
    for wrong, said in (
        ("trian.steps=1", "unknown table [trian] in the recipe; did you mean 'train'?"),
        ("serve.prot=80", "unknown key 'prot' in [serve]; did you mean 'port'?"),
        ("evaluate.order=[3]", "unknown key 'order' in [evaluate]; did you mean 'orders'?"),
        ("serve.port=70000", "serve.port"),
    ):
        assert said in fails(verb, "--run", tmp_path / "run", "--set", wrong)
    assert not (tmp_path / "run").exists()


def test_an_impossible_value_is_named(fails, tmp_path):
    line = fails("train", "--run", tmp_path, "--set", "train.steps=many")
    assert "train.steps = 'many'" in line
    assert "valid integer" in line


def test_settings_follow_the_recipe_and_the_command_line_wins(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("[train]\nsteps = 5\nseed = 3\n[train.optimizer]\nrate = 0.5\n")
    settings = options.Settings(path, ["train.steps=7", "train.optimizer.muon=false", "serve.host=localhost"])
    train = settings.of("train")
    assert (train.steps, train.seed, train.optimizer.rate, train.optimizer.muon) == (7, 3, 0.5, False)
    assert settings.of("serve").host == "localhost"
    assert settings.given("train") == {"steps", "seed", "optimizer"}


def test_info_prints_numbers(yatsude, home):
    for name in ("tiny", "700b", home / "export"):
        code, out, _ = yatsude("info", name)
        assert code == 0
        assert "active" in out


def test_generate_continues_the_prompt_on_standard_output_alone(yatsude, home):
    code, out, _ = yatsude("generate", "今日は", home / "export", "--max-tokens", 5, "--seed", 1)
    assert code == 0
    assert out.startswith("今日は")
    assert out.endswith("\n")
    assert yatsude("generate", "今日は", home / "export", "--max-tokens", 5, "--seed", 1)[1] == out


def test_chat_answers_starts_anew_and_ends(home):
    process = start("chat", home / "export", "--temperature", 0, stdin=subprocess.PIPE)
    long = "長い話" * 200
    out, err = process.communicate(f"こんにちは\n\nやあ\n{long}\nさようなら\n", timeout=120)
    assert process.returncode == 0, err
    assert out.count("> ") == 6
    assert "a new conversation" in err
    assert "the model reads 128" in err


def steps_of(folder):
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def test_a_second_ctrl_c_ends_at_once_in_the_middle_of_a_product(home, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("data", "tokenizer"):
        (run / name).symlink_to(home / name)
    process = start("train", "--run", run, *sets(*SMALL, "train.steps=100000"))
    end = time.monotonic() + 120
    while len(steps_of(run / "train")) < 6 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("stopped")
    assert "Traceback" not in err
    assert "terminate" not in err


@pytest.mark.parametrize(("verb", "steps"), [("train", SMALL), ("tune", TUNE)])
def test_ctrl_c_is_one_line_and_the_same_command_goes_on(home, tmp_path, verb, steps):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("data", "tokenizer", *(["train"] if verb == "tune" else [])):
        (run / name).symlink_to(home / name)
    words = (verb, "--run", run, *sets(*steps, f"{verb}.steps=60"))
    process, end = start(*words), time.monotonic() + 120
    while len(steps_of(run / verb)) < 6 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    reached = steps_of(run / verb)[-1]
    assert err.splitlines()[-1] == f"stopped at step {reached} of 60; the same command goes on from here"
    assert "Traceback" not in err
    assert not (run / verb / "model").exists()
    again = start(*words)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert f"resuming {run / verb} at step {reached} of 60" in err
    assert sorted(set(steps_of(run / verb))) == list(range(1, 61))
    assert (run / verb / "model" / "model.safetensors").is_file()
