"""`yatsude serve`."""

from pathlib import Path

from yatsude.cli import options

__all__ = ["command"]


def command(
    model: options.Model = None,
    recipe: options.Recipe = None,
    sets: options.Sets = None,
    run: options.Run = Path("runs/default"),
) -> None:
    """Serve the chat page and an OpenAI-style API until Ctrl-C."""
    settings = options.Settings(recipe, sets)
    from yatsude.serve.run import run as serve  # noqa: PLC0415

    serve(settings.of("serve"), model or run / "export", settings.of("engine"))
