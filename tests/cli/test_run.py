"""What `yatsude run` keeps, and what it does again."""

import shlex
import shutil
from pathlib import Path

import pytest

from yatsude import manifest, recipe
from yatsude.cli import options, run
from yatsude.errors import DataError
from yatsude.train import choose as choosing

from .conftest import SMALL, TUNE, content, sets


@pytest.fixture
def copy(home, tmp_path):
    return shutil.copytree(home, tmp_path / "run")


@pytest.fixture
def measured(monkeypatch):
    """How often the machine was measured."""
    calls = []

    def choose(minutes, tokens, model, train, **more):
        calls.append(minutes)
        return choosing.Choice(model=model, train=train, reasons=())

    monkeypatch.setattr(choosing, "choose", choose)
    monkeypatch.setattr(choosing, "tune_steps", lambda *_: (100, "as measured"))
    return calls


def test_a_changed_tuning_keeps_the_choice_of_model_and_training(copy, measured):
    def steps(*changes):
        return run._chosen(options.Settings(None, [*changes]), copy, 10, True)[2].steps

    assert steps("tune.sequences_per_step=8") == 100
    assert steps("tune.sequences_per_step=8") == 100
    assert steps("tune.sequences_per_step=16") == 50
    assert steps("tune.steps=7") == 7
    assert steps("tune.sequences_per_step=8") == 100
    assert len(measured) == 1
    steps("train.seed=3")
    assert len(measured) == 2


def test_a_run_that_is_begun_keeps_its_choice_until_restarted(fails, copy):
    (copy / "choice.toml").write_text("# for 10 minutes, as chosen then\n", encoding="utf-8")
    line = fails("run", "--run", copy, "--minutes", "77", "--no-serve")
    assert "another --run, or --restart to begin anew" in line
    assert (copy / "choice.toml").read_text(encoding="utf-8") == "# for 10 minutes, as chosen then\n"


@pytest.mark.parametrize("changed", ["tokenizer.vocab_size=500", "data.seed=3", "train.seed=3"])
def test_other_settings_are_refused_before_the_text_is_replaced(fails, copy, changed):
    settings = options.Settings(None, None)
    (copy / "choice.toml").write_text(f"{run._origin(settings, 10)}, tokens 0\n", encoding="utf-8")
    for name in ("data", "tokenizer"):
        recipe.write(copy / name / "recipe.toml", {name: settings.of(name)})
    run._same(settings, copy, 10)
    before = content(copy)
    assert "another --run, or --restart" in fails("run", "--run", copy, "--no-serve", "--set", changed)
    assert content(copy) == before


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_minutes_that_are_no_time_are_refused(fails, tmp_path, minutes):
    line = fails("run", "--run", tmp_path / "new", f"--minutes={minutes}")
    assert f"--minutes {minutes}: expected more than 0" in line
    assert not (tmp_path / "new").exists()


def test_the_next_command_has_the_same_recipe_and_settings(tmp_path):
    said = options.following("tokenizer", tmp_path / "a run", Path("my.toml"), ["data.sources=['file:x']"])
    words = shlex.split(said.removeprefix("next: "))
    assert words[:2] == ["yatsude", "tokenizer"]
    assert words[2:] == ["--run", f"{tmp_path / 'a run'}", "--recipe", "my.toml", "--set", "data.sources=['file:x']"]


def test_a_model_tuned_from_an_earlier_base_is_neither_measured_nor_exported(fails, yatsude, copy):
    before = content(copy / "export")
    code, _, err = yatsude("train", "--run", copy, "--restart", *sets(*SMALL, "train.seed=9"))
    assert code == 0, err
    for verb in ("evaluate", "export"):
        line = fails(verb, "--run", copy)
        assert "was tuned from another model than" in line
        assert "run 'yatsude tune --restart', or remove" in line
    assert content(copy / "export") == before
    shutil.rmtree(copy / "tune")
    assert yatsude("export", "--run", copy)[0] == 0
    assert manifest.made_from(manifest.read(copy / "export"), copy / "train" / "model")


def test_a_tuned_model_whose_base_was_removed_is_exported(yatsude, copy):
    shutil.rmtree(copy / "train")
    assert yatsude("export", "--run", copy)[0] == 0


def test_figures_of_another_model_stay_out_of_the_card(yatsude, copy):
    place = copy / "evaluate"
    place.mkdir()
    (place / "figures.json").write_text('{"held_out_bits_per_character": 1.2345}')
    manifest.write(place, "evaluate", inputs=[copy / "train" / "model", copy / "tune" / "model"])
    assert yatsude("export", "--run", copy)[0] == 0
    assert "1.2345" in (copy / "export" / "README.md").read_text()
    assert [entry.stage for entry in manifest.read(copy / "export").inputs] == ["tune", "evaluate"]
    code, _, err = yatsude("tune", "--run", copy, "--restart", *sets(*TUNE, "tune.seed=5"))
    assert code == 0, err
    code, _, err = yatsude("export", "--run", copy)
    assert code == 0, err
    assert f"{place} is of another model: the card has no figures" in err
    assert "1.2345" not in (copy / "export" / "README.md").read_text()


def test_without_conversations_nothing_is_trained(copy, monkeypatch, tmp_path):
    monkeypatch.setattr("yatsude.train.build.build", lambda *_: pytest.fail("trained for nothing"))
    shutil.rmtree(copy / "train")
    (tmp_path / "none.jsonl").write_text("")
    settings = options.Settings(None, [*SMALL, f"tune.sources=['file:{tmp_path / 'none.jsonl'}']"])
    with pytest.raises(DataError, match="no conversations in"):
        run._learn(settings.of("model"), settings.of("train"), settings.of("tune"), copy, False)


@pytest.mark.parametrize("trained", [True, False])
def test_a_source_out_of_reach_is_asked_for_again_until_a_training_began(copy, monkeypatch, capsys, trained):
    monkeypatch.setattr("yatsude.manifest.is_current", lambda *_: True)
    monkeypatch.setattr("yatsude.data.build.unreached", lambda _: ["manpages-ja"])
    built = []
    monkeypatch.setattr("yatsude.data.build.build", lambda *_: built.append(1))
    if not trained:
        shutil.rmtree(copy / "train")
    run._text(options.Settings(None, None), copy)
    assert bool(built) is not trained
    assert ("made without manpages-ja" in capsys.readouterr().err) is trained
