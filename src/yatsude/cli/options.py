"""What every verb takes: a recipe, single settings, and the folder of the run."""

import math
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from yatsude import recipe
from yatsude.checkpoint.settings import ExportSettings, UpcycleSettings
from yatsude.data.settings import DataSettings
from yatsude.engine.settings import EngineSettings
from yatsude.errors import RecipeError
from yatsude.evaluate.settings import EvaluateSettings
from yatsude.serve.settings import ServeSettings
from yatsude.spec.launch import LaunchSettings
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.settings import ModelSettings
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.train.settings import TrainSettings, WatchSettings
from yatsude.tune.settings import TuneSettings

__all__ = ["SECTIONS", "Model", "Recipe", "Restart", "Run", "Sets", "Settings", "following", "refuse_unless_positive"]

SECTIONS: dict[str, type[Any]] = {
    "data": DataSettings,
    "tokenizer": TokenizerSettings,
    "model": ModelSettings,
    "train": TrainSettings,
    "parallel": ParallelSettings,
    "launch": LaunchSettings,
    "watch": WatchSettings,
    "tune": TuneSettings,
    "evaluate": EvaluateSettings,
    "export": ExportSettings,
    "upcycle": UpcycleSettings,
    "engine": EngineSettings,
    "serve": ServeSettings,
}
"""The tables of a recipe."""

Recipe = Annotated[Path | None, typer.Option("--recipe", "-r", help="TOML file with settings; see recipes/.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="TABLE.KEY=VALUE", help="One setting, over the recipe's; may be repeated."),
]
Run = Annotated[Path, typer.Option("--run", help="Folder of the run; each stage has a folder of its own in it.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget an earlier attempt instead of going on with it.")]
Model = Annotated[
    Path | None, typer.Argument(metavar="[MODEL]", help="Folder of a model; by default the run's exported one.")
]


def following(verb: str, run: Path, recipe: Path | None, sets: list[str] | None) -> str:
    """The next command, with the same recipe and the same single settings."""
    words = ["yatsude", verb, "--run", str(run), *(["--recipe", str(recipe)] if recipe else [])]
    return "next: " + shlex.join([*words, *(word for one in sets or () for word in ("--set", one))])


def refuse_unless_positive(**values: float | None) -> None:
    """Refuse options whose number, where one is given, is no amount."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise RecipeError(f"--{name.replace('_', '-')} {value:g}: expected more than 0")


class Settings:
    """A recipe with the settings of the command line laid over it; a mistake in any table is told at once."""

    def __init__(self, path: Path | None, sets: list[str] | None) -> None:
        self.tables = recipe.read(path, sets or ())
        for name in SECTIONS:
            self.of(name)  # or `yatsude run` would find a mistake in [serve] after all its minutes

    def of(self, name: str) -> Any:
        """Settings of one table, as the room that owns it defines them."""
        return recipe.resolve(self.tables, SECTIONS, name, SECTIONS[name])

    def given(self, name: str) -> frozenset[str]:
        """Keys of one table that were set by hand."""
        return frozenset(self.tables.get(name, {}))
