"""`yatsude run`: the whole path, from nothing to a chat page."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Annotated

import typer

from yatsude import manifest, recipe
from yatsude.cli import export as export_verb
from yatsude.cli import options
from yatsude.errors import RecipeError
from yatsude.progress import say
from yatsude.spec.settings import ModelSettings
from yatsude.train.settings import TrainSettings, WatchSettings
from yatsude.tune.settings import TuneSettings

__all__ = ["command"]

CHOICE = "choice.toml"


def command(
    minutes: Annotated[float, typer.Option(help="Time for pre-training and tuning together.")] = 10.0,
    recipe_file: options.Recipe = None,
    sets: options.Sets = None,
    run: options.Run = Path("runs/default"),
    restart: options.Restart = False,
    serve: Annotated[bool, typer.Option(help="End by serving the chat page.")] = True,
) -> None:
    """Fetch text, learn a tokenizer, train, tune, measure, export and serve; what is done already is skipped."""
    if not 0 < minutes < math.inf:
        raise RecipeError(f"--minutes {minutes:g}: expected more than 0; 10 is the default")
    settings = options.Settings(recipe_file, sets)
    if settings.of("train").base:
        raise RecipeError("train.base: 'yatsude run' begins from nothing; take 'yatsude train', 'tune' and 'export'")
    if (ranks := settings.of("parallel").ranks) > 1:
        raise RecipeError(
            f"[parallel] has {ranks} ranks: 'yatsude run' trains in one process; take 'yatsude train', 'tune', 'export'"
        )
    start = time.monotonic()
    if _begun(run) and not restart:
        _same(settings, run, minutes)
    _text(settings, run)
    model, train, tune = _chosen(settings, run, minutes, restart)
    _learn(model, train, tune, run, restart, settings.of("watch"))
    _measure_and_export(settings, run)
    say(f"done in {(time.monotonic() - start) / 60:.1f} minutes; the report is {run / 'evaluate' / 'report.html'}")
    if serve:
        from yatsude.serve.run import run as serve_model  # noqa: PLC0415

        serve_model(settings.of("serve"), run / "export", settings.of("engine"))
    else:
        say(f"next: yatsude serve {run / 'export'}")


def _text(settings: options.Settings, run: Path) -> None:
    from yatsude.data.build import build as build_data  # noqa: PLC0415
    from yatsude.data.build import digest, unreached  # noqa: PLC0415
    from yatsude.tokenizer.build import build as build_tokenizer  # noqa: PLC0415

    data, tokenizer = settings.of("data"), settings.of("tokenizer")
    if not manifest.is_current(run / "data", "data", digest(data)):
        _title("text")
        build_data(data, run / "data")
    elif missing := unreached(run / "data"):
        if (run / "train").exists():  # other text would be another run
            say(f"made without {', '.join(missing)}, out of reach then; 'yatsude data' tries again")
        else:
            _title("text")
            build_data(data, run / "data")
    if not manifest.is_current(run / "tokenizer", "tokenizer", recipe.digest({"tokenizer": tokenizer}), [run / "data"]):
        _title("tokenizer")
        build_tokenizer(tokenizer, run / "data", run / "tokenizer")


def _chosen(
    settings: options.Settings, run: Path, minutes: float, restart: bool
) -> tuple[ModelSettings, TrainSettings, TuneSettings]:
    """Measure and choose once: a run that is resumed keeps what it chose, or it would be another run."""
    path = run / CHOICE
    origin = f"{_origin(settings, minutes)}, tokens {_stamp(run / 'tokenizer')}\n"
    if path.is_file() and path.read_text(encoding="utf-8").startswith(origin):
        kept = options.Settings(path, None)
        say(f"model and run as chosen before, in {path}")
        return kept.of("model"), kept.of("train"), _tuning(settings, kept.of("tune"))
    if _begun(run) and not restart:
        raise _another(run)
    from yatsude.train.choose import choose, tune_steps  # noqa: PLC0415

    _title("measuring this machine")
    tune = settings.of("tune")
    choice = choose(
        minutes,
        run / "tokenizer",
        settings.of("model"),
        settings.of("train"),
        fixed=settings.given("model") | settings.given("train"),
    )
    for reason in choice.reasons:
        say(f"  {reason}")
    if "steps" not in settings.given("tune"):
        steps, reason = tune_steps(minutes, run / "tokenizer", choice.model, choice.train, tune)
        say(f"  {reason}")
        tune = dataclasses.replace(tune, steps=steps)
    recipe.write(path, {"model": choice.model, "train": choice.train, "tune": tune}, comment=origin)
    return choice.model, choice.train, tune


def _same(settings: options.Settings, run: Path, minutes: float) -> None:
    """Refuse to go on with another run's settings, before the text that it was made of is replaced."""
    path = run / CHOICE
    same = path.is_file() and path.read_text(encoding="utf-8").startswith(_origin(settings, minutes))
    for name in ("data", "tokenizer"):
        page = run / name / "recipe.toml"
        same = same and (not page.is_file() or options.Settings(page, None).of(name) == settings.of(name))
    if not same:
        raise _another(run)


def _origin(settings: options.Settings, minutes: float) -> str:
    key = recipe.digest({name: settings.of(name) for name in ("model", "train")})
    return f"# for {minutes:g} minutes, settings {key[:16]}"


def _another(run: Path) -> RecipeError:
    return RecipeError(
        f"{run} holds a training for other --minutes, with other settings or of other text; give another --run, or"
        " --restart to begin anew"
    )


def _begun(run: Path) -> bool:
    """Whether there is a training to go on with, or a finished one."""
    return (run / "train" / "model").is_dir() or any((run / "train" / "checkpoints").glob("step-*"))


def _tuning(settings: options.Settings, reckoned: TuneSettings) -> TuneSettings:
    """The tuning that is asked for now; steps that were not set by hand read as many tokens as were reckoned then."""
    tune = settings.of("tune")
    if "steps" in settings.given("tune"):
        return tune
    tokens = reckoned.steps * reckoned.sequences_per_step * reckoned.sequence_length
    return dataclasses.replace(tune, steps=max(1, tokens // (tune.sequences_per_step * tune.sequence_length)))


def _learn(
    model: ModelSettings,
    train: TrainSettings,
    tune: TuneSettings,
    run: Path,
    restart: bool,
    watch: WatchSettings | None = None,
) -> None:
    from yatsude.train.build import build as build_model  # noqa: PLC0415
    from yatsude.tune.build import build as build_chat  # noqa: PLC0415
    from yatsude.tune.build import digest as tune_digest  # noqa: PLC0415
    from yatsude.tune.conversations import conversations  # noqa: PLC0415

    base, chat = run / "train" / "model", run / "tune" / "model"
    digest = recipe.digest({"model": model, "train": train})
    if restart or not manifest.is_current(base, "train", digest, [run / "tokenizer"]):
        for split in ("train", "validation"):  # without any, better an error before the training
            conversations(tune.sources, run / "data", split, limit=1)
        _title("training")
        build_model(model, train, run / "tokenizer", run / "train", restart, watch=watch)
    if restart or not manifest.is_current(chat, "tune", tune_digest(tune), [base]):
        _title("tuning")
        build_chat(tune, base, run / "data", run / "tune", restart, watch)


def _measure_and_export(settings: options.Settings, run: Path) -> None:
    from yatsude.cli.evaluate import measure  # noqa: PLC0415

    if not manifest.is_current(
        run / "evaluate",
        "evaluate",
        recipe.digest({"evaluate": settings.of("evaluate")}),
        [run / "train" / "model", run / "tune" / "model"],
    ):
        _title("measuring the model")
        measure(settings, run)
    if not manifest.is_current(
        run / "export",
        "export",
        recipe.digest({"export": settings.of("export")}),
        [run / "tune" / "model", run / "evaluate"],
    ):
        _title("export")
        export_verb.write(settings, run)


def _title(text: str) -> None:
    say(f"── {text} ──")


def _stamp(folder: Path) -> str:
    return manifest.digest(manifest.read(folder))[:16]
