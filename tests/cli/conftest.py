import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from yatsude.cli.main import application, main

PROGRAM = "from yatsude.cli.main import main; main()"
SMALL = (
    "model.preset=pico",
    "model.max_position_embeddings=128",
    "train.steps=12",
    "train.sequence_length=32",
    "train.sequences_per_step=2",
    "train.workers=1",
    "train.precision=fp32",
    "train.evaluations=1",
    "train.checkpoint_steps=4",
)
TUNE = (
    "tune.steps=2",
    "tune.sequence_length=128",
    "tune.sequences_per_step=2",
    "tune.workers=1",
    "tune.precision=fp32",
    "tune.evaluations=1",
)


def sets(*items):
    return [part for item in items for part in ("--set", item)]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Torch's threads wait for each other at every small product, which is slow on a busy machine."""
    monkeypatch.setattr("yatsude.train.build.cores", lambda: 1)


def start(*args, **more):
    """The command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", PROGRAM, *map(str, args)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **more)


@pytest.fixture
def yatsude(monkeypatch, capfd):
    """Run the command in this process: (exit code, standard output, standard error)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["yatsude", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return run


@pytest.fixture
def fails(yatsude):
    """Run a command that must fail with one line; the line comes back."""

    def run(*args):
        code, _, err = yatsude(*args)
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 1, err
        assert len(lines) == 1, err
        assert err.splitlines()[-1] == lines[0]
        assert "Traceback" not in err
        return lines[0]

    return run


@pytest.fixture(scope="session")
def home(tmp_path_factory, write_corpus):
    """A finished run of a pico model: data, tokenizer, train, tune, export."""
    root = tmp_path_factory.mktemp("home")
    corpus = write_corpus(root / "text.jsonl", 400)
    run = root / "run"
    steps = (
        (
            "data",
            *sets(f"data.sources=['file:{corpus}']", "data.validation_fraction=0.1", "data.held_out_fraction=0.1"),
        ),
        ("tokenizer", *sets("tokenizer.vocab_size=400")),
        ("train", *sets(*SMALL)),
        ("tune", *sets(*TUNE)),
        ("export",),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yatsude.train.build.cores", lambda: 1)
        for step in steps:
            done = CliRunner().invoke(application(), [*step, "--run", str(run)])
            assert done.exit_code == 0, done.output
            assert "next: yatsude" in done.output
    return run


def content(folder):
    """Every file of a folder, byte for byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
