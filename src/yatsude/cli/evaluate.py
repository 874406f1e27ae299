"""`yatsude evaluate`."""

from pathlib import Path

from yatsude.cli import options
from yatsude.cli.export import tuned
from yatsude.progress import say

__all__ = ["command", "measure"]


def command(recipe: options.Recipe = None, sets: options.Sets = None, run: options.Run = Path("runs/default")) -> None:
    """Measure the run's models on held-out text and prompts, beside n-grams, and write report.html."""
    measure(options.Settings(recipe, sets), run)
    say(f"the report is {run / 'evaluate' / 'report.html'}")
    say(options.following("export", run, recipe, sets))


def measure(settings: options.Settings, run: Path) -> None:
    """Evaluate what the run has: the pre-trained model, and the tuned one where there is one."""
    from yatsude.evaluate.build import build  # noqa: PLC0415

    chat = tuned(run)
    build(
        settings.of("evaluate"),
        run / "train" / "model",
        run / "data",
        run / "tokenizer",
        run / "evaluate",
        train_log=run / "train" / "log.jsonl",
        tune_log=run / "tune" / "log.jsonl" if chat else None,
        chat_model=chat,
    )
