"""`yatsude verify`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli.export import rounding
from yatsude.files import sha256_of
from yatsude.progress import say
from yatsude.spec.hf import TOKENIZER_FILES

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a model.")],
    against: Annotated[Path | None, typer.Option(help="Folder of the model that it must equal.")] = None,
) -> None:
    """Read a model folder as it lies on disk: every tensor in its place and finite, checksums, logits."""
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415
    from yatsude.checkpoint.pieces import in_pieces  # noqa: PLC0415
    from yatsude.checkpoint.verify import check, verify  # noqa: PLC0415

    with in_pieces():
        health = check(folder)
    sums = "files are what the manifest says" if health.checksums else "no manifest, so no checksums to hold files to"
    say(f"{health.tensors:,} tensors, {health.parameters:,} parameters, all finite; {sums}")
    say(f"checksum of the tensors {health.tensors_sha256}")
    if against is None:
        return
    with in_pieces():
        figures = verify(folder, Folder(against))
    say(
        f"equal to {against}: {figures.tensors:,} tensors as rounded to this precision, largest difference"
        f" {figures.tensor_difference:.1e}; logits {figures.logit_difference:.1e}"
    )
    if figures.rounding_difference:
        say(rounding(figures))
    if other := [
        name for name in (*TOKENIZER_FILES, "generation_config.json") if _differ(folder / name, against / name)
    ]:
        say(f"weights are equal, other files are not: {', '.join(other)}")


def _differ(one: Path, other: Path) -> bool:
    return one.is_file() != other.is_file() or (one.is_file() and sha256_of(one) != sha256_of(other))
