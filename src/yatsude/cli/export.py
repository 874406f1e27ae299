"""`yatsude export`."""

import json
from pathlib import Path

from yatsude.cli import options
from yatsude.progress import say
from yatsude.recipe import digest

__all__ = ["command"]


def command(recipe: options.Recipe = None, sets: options.Sets = None, run: options.Run = Path("runs/default")) -> None:
    """Write the run's model as a Hugging Face folder, reload it, and compare its logits before reporting success."""
    write(options.Settings(recipe, sets), run)
    say(f"next: yatsude serve {run / 'export'}")


def write(settings: options.Settings, run: Path) -> None:
    """Export the run's last model, with the figures of its evaluation if there are any."""
    import torch  # noqa: PLC0415

    from yatsude.checkpoint import hf  # noqa: PLC0415
    from yatsude.checkpoint.export import export  # noqa: PLC0415

    source = newest(run)
    figures = run / "evaluate" / "figures.json"
    check = export(
        hf.load(source, torch.float32),
        source,
        run / "export",
        settings.of("export"),
        inputs=[source],
        recipe_sha256=digest({"export": settings.of("export")}),
        figures=_headline(figures) if figures.is_file() else None,
    )
    say(
        f"verified: {check.tensors} tensors and the logits of what was written,"
        f" largest difference {check.logit_difference:.1e}"
    )


def newest(run: Path) -> Path:
    """Folder of the run's last model: the tuned one if there is one."""
    tuned = run / "tune" / "model"
    return tuned if tuned.is_dir() else run / "train" / "model"


def _headline(path: Path) -> dict[str, int | float | str]:
    page = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in page.items() if isinstance(value, int | float | str)}
