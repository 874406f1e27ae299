"""`yatsude plan dry-run` and `yatsude plan --dry-run`, as somebody would type them."""

import pytest

RECIPE = """
[model]
preset = "nano"
[train]
sequence_length = 256
sequences_per_step = 16
optimizer.muon = false
[parallel]
pp = 2
dp = 2
ep = 2
"""


SMALL = ("--preset", "nano", "--gpus", "2", "--gpu", "h100", "--tokens", "1M", "--batch", "8", "--sequence", "256")


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


def test_every_stage_is_played_beside_the_closed_form(yatsude, recipe):
    code, out, err = yatsude("plan", "dry-run", recipe)
    assert code == 0, err
    assert "0 (pp 0)" in out
    assert "2 (pp 1)" in out
    assert "closed form, off by: M parameters" in out


def test_the_layout_of_a_plan_is_played(yatsude):
    code, out, err = yatsude("plan", *SMALL, "--dry-run")
    assert code == 0, err
    assert "dry run of" in out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--rank", "4"), "--rank 4: the job has ranks 0 to 3"),
        (("--set", "parallel.micro_batches=3"), "parallel.micro_batches = 3"),
        (("--set", "parallel.ep=3"), "parallel.ep = 3: expected a divisor"),
    ],
)
def test_what_cannot_be_played_is_refused_in_a_line(yatsude, recipe, words, why):
    code, _, err = yatsude("plan", "dry-run", recipe, *words)
    assert code == 1
    assert why in err.replace("\n", " ")
