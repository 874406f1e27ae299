"""`yatsude tokenizer`."""

from pathlib import Path

from yatsude.cli import options
from yatsude.progress import say

__all__ = ["command"]


def command(recipe: options.Recipe = None, sets: options.Sets = None, run: options.Run = Path("runs/default")) -> None:
    """Learn a tokenizer from the run's text, pack that text into token shards, and measure characters per token."""
    settings = options.Settings(recipe, sets)
    from yatsude.tokenizer.build import build  # noqa: PLC0415

    summary = build(settings.of("tokenizer"), run / "data", run / "tokenizer")
    say(
        f"{summary.train_tokens:,} tokens to train on, {summary.validation_tokens:,} for validation,"
        f" {summary.held_out_tokens:,} held out"
    )
    say(options.following("train", run, recipe, sets))
