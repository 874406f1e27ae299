"""`yatsude export`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from yatsude import manifest
from yatsude.cli import options
from yatsude.errors import DataError
from yatsude.progress import say
from yatsude.recipe import digest

if TYPE_CHECKING:
    from yatsude.checkpoint.verify import Figures

__all__ = ["command", "tuned", "verified", "write"]


def command(recipe: options.Recipe = None, sets: options.Sets = None, run: options.Run = Path("runs/default")) -> None:
    """Write the run's model as a Hugging Face folder, reload it, and compare its logits before reporting success."""
    write(options.Settings(recipe, sets), run)
    say(f"next: yatsude serve {run / 'export'}")


def write(settings: options.Settings, run: Path) -> None:
    """Export the run's last model, tuned if it was, with the figures of its evaluation if there are any."""
    from yatsude.checkpoint.export import Origin, export  # noqa: PLC0415
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415

    source, measured = tuned(run) or run / "train" / "model", run / "evaluate"
    evaluated = (measured / manifest.NAME).is_file() and manifest.made_from(manifest.read(measured), source)
    if measured.is_dir() and not evaluated:
        say(f"{measured} is of another model: the card has no figures; 'yatsude evaluate' measures this one")
    say(f"exporting {source}")
    origin = Origin(
        models=(source,),
        inputs=(source, *([measured] if evaluated else [])),
        figures=_headline(measured / "figures.json") if evaluated else {},
        recipe_sha256=digest({"export": settings.of("export")}),
    )
    say(verified(export(Folder(source), run / "export", settings.of("export"), origin)))


def verified(figures: "Figures") -> str:
    """What was compared, in a line, and what the precision on disk costs."""
    return (
        f"verified: {figures.tensors:,} tensors and the logits of what was written, largest difference"
        f" {figures.logit_difference:.1e}{f'; {rounding(figures)}' if figures.rounding_difference else ''}"
    )


def rounding(figures: "Figures") -> str:
    """What the precision on disk costs, in a line."""
    return (
        f"rounding moves logits by up to {figures.rounding_difference:.3g} of {figures.largest_logit:.3g}, the"
        f" likeliest token stays at {100 * figures.same_choice:.1f} % of the positions"
    )


def tuned(run: Path) -> Path | None:
    """Folder of the run's tuned model if there is one; one that was tuned from an earlier base is an error."""
    chat, base = run / "tune" / "model", run / "train" / "model"
    if not chat.is_dir():
        return None
    if (base / manifest.NAME).is_file() and not manifest.made_from(manifest.read(chat), base):
        raise DataError(
            f"{chat} was tuned from another model than {base}; run 'yatsude tune --restart', or remove {chat.parent} to"
            " go on with the base model"
        )
    return chat


def _headline(path: Path) -> dict[str, int | float | str]:
    page = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in page.items() if isinstance(value, int | float | str)}
