"""`yatsude train`."""

from pathlib import Path

from yatsude.cli import options
from yatsude.progress import say

__all__ = ["command"]


def command(
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    run: options.Run = Path("runs/default"),
    restart: options.Restart = False,
) -> None:
    """Pre-train on the run's token shards; a stopped training goes on where it was."""
    settings = options.Settings(recipe, sets)
    from yatsude.train.build import build  # noqa: PLC0415

    summary = build(settings.of("model"), settings.of("train"), run / "tokenizer", run / "train", restart)
    say(f"{summary.score()}, after {summary.tokens:,} tokens")
    say(options.following("tune", run, recipe, sets))
