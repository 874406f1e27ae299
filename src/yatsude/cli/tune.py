"""`yatsude tune`."""

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
    """Fine-tune the run's model on conversations; a stopped tuning goes on where it was."""
    settings = options.Settings(recipe, sets)
    if settings.of("parallel").ranks > 1:
        say("tuning runs in one process; [parallel] is of 'yatsude train' alone")
    from yatsude.tune.build import build  # noqa: PLC0415

    places = run / "train" / "model", run / "data", run / "tune"
    summary = build(settings.of("tune"), *places, restart, settings.of("watch"))
    say(f"answers: {summary.score()}")
    say(options.following("evaluate", run, recipe, sets))
