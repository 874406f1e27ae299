"""`yatsude watch`."""

import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from yatsude.errors import DataError
from yatsude.progress import board, draw
from yatsude.train.log import Reader
from yatsude.train.view import View

__all__ = ["command"]

LOOK_S = 1.0
LOG = "log.jsonl"
STAGES = {"train": "training", "tune": "tuning"}
"""Table of the recipe -> what the view calls it."""


def command(
    run: Annotated[Path, typer.Argument(metavar="[RUN]", help="Folder of a run, or of one of its stages.")] = Path(
        "runs/default"
    ),
    once: Annotated[bool, typer.Option("--once", help="Print the present state and end.")] = False,
) -> None:
    """Look on at a run from another shell, while it trains or afterwards: all that is shown stands in its log."""
    log = _newest(run)
    view, reader = _view(log.parent), Reader(log)
    for line in reader.new():
        view.add(line)
    if once or view.ended or not sys.stderr.isatty():
        draw(view)
        return
    with board(view):
        while not view.ended:
            time.sleep(LOOK_S)
            for line in reader.new():
                view.add(line)


def _newest(run: Path) -> Path:
    """The log that was written last."""
    logs = [place / LOG for place in (run, *(run / stage for stage in STAGES)) if (place / LOG).is_file()]
    if not logs:
        raise DataError(f"no log at {run / 'train' / LOG}; give the folder of a run that 'yatsude train' has begun")
    return max(logs, key=lambda path: path.stat().st_mtime)


def _view(folder: Path) -> View:
    """A view with the length of the run, from the recipe beside the log."""
    try:
        tables = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return View(str(folder))
    stage = next((name for name in reversed(STAGES) if name in tables), "train")
    return View(f"{folder.parent.name}, {STAGES[stage]}", int(tables.get(stage, {}).get("steps", 0)))
