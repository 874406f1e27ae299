import json

import pytest

from yatsude.cli import watch


def test_a_finished_run_is_looked_at_from_another_shell(yatsude, home):
    code, out, err = yatsude("watch", home / "train")
    assert code == 0, err
    for part in ("run, training, step 12 of 12", "loss", "bits a character", "tokens/s, a step", "planned", "MFU"):
        assert part in out, part
    code, out, _ = yatsude("watch", home, "--once")
    assert code == 0
    assert "run, tuning, step 2 of 2" in out


def test_a_run_that_has_not_begun_is_one_line(fails, tmp_path):
    assert "no log at" in fails("watch", tmp_path)


def test_names_of_sinks_are_checked_before_anything_is_done(fails, tmp_path):
    assert "unknown 'tensorbord'; did you mean 'tensorboard'" in fails("train", "--watch", "tensorbord")


def test_whether_it_has_ended_and_how_long_it_is_stands_in_the_folder(yatsude, home, tmp_path):
    """A run that goes on, without a terminal: its state is printed once. A log alone has no length."""
    log = (home / "train" / "log.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "log.jsonl").write_text("".join(log[:5]) + log[5][:20])
    code, out, err = yatsude("watch", tmp_path)
    assert code == 0, err
    assert "step 5 " in out
    (tmp_path / "recipe.toml").write_text((home / "train" / "recipe.toml").read_text())
    assert "step 5 of 12" in yatsude("watch", tmp_path)[1]


def test_a_running_one_is_followed_to_its_end(yatsude, tmp_path, monkeypatch):
    log, looks = tmp_path / "log.jsonl", []

    def write(step):
        with log.open("a") as stream:
            stream.write(json.dumps({"step": step, "loss": 3.0, "tokens": step, "seconds": step}) + "\n")

    def look(_):
        looks.append(1)
        write(1 + len(looks))

    (tmp_path / "recipe.toml").write_text("[train]\nsteps = 4\n")
    write(1)
    monkeypatch.setattr(watch.time, "sleep", look)
    monkeypatch.setattr("yatsude.cli.watch.sys.stderr.isatty", lambda: True, raising=False)
    code, _, err = yatsude("watch", tmp_path)
    assert code == 0, err
    assert len(looks) == 3
    assert "step 4 of 4" in err


@pytest.mark.parametrize("page", ["", "steps = [", "[train]\nsteps = 0\n"])
def test_a_recipe_that_says_nothing_is_no_obstacle(yatsude, tmp_path, page):
    (tmp_path / "recipe.toml").write_text(page)
    (tmp_path / "log.jsonl").write_text('{"step": 2, "loss": 3.0, "tokens": 5, "seconds": 1.0}\n')
    code, out, err = yatsude("watch", tmp_path)
    assert code == 0, err
    assert "step 2 " in out
