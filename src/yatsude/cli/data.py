"""`yatsude data`."""

from pathlib import Path

from yatsude.cli import options
from yatsude.progress import say

__all__ = ["command"]


def command(recipe: options.Recipe = None, sets: options.Sets = None, run: options.Run = Path("runs/default")) -> None:
    """Fetch the sources, clean and split them, and write Parquet with a manifest of every licence."""
    settings = options.Settings(recipe, sets)
    from yatsude.data.build import build  # noqa: PLC0415

    summary = build(settings.of("data"), run / "data")
    for source in summary.sources:
        dropped = sum(source.dropped.values())
        say(f"{source.name}: {source.documents:,} documents, {source.characters:,} characters, {dropped:,} dropped")
    say(
        f"{summary.train_characters:,} characters to train on, {summary.validation_characters:,} for validation,"
        f" {summary.held_out_characters:,} held out"
    )
    say(options.following("tokenizer", run, recipe, sets))
