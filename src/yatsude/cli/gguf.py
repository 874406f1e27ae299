"""`yatsude gguf`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from yatsude.progress import say

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(help="Exported model: config.json, safetensors, tokenizer.json.")],
    file: Annotated[Path, typer.Argument(help="File to write, such as model.gguf.")],
    dtype: Annotated[
        Literal["f32", "bf16", "q8_0"], typer.Option(help="Precision of the matrices; q8_0 takes about 8.5 bits each.")
    ] = "bf16",
) -> None:
    """Write an exported model as one GGUF file for llama.cpp, and compare it with the folder before it counts."""
    from yatsude.checkpoint.bases import refuse_without_licence  # noqa: PLC0415
    from yatsude.checkpoint.folder import Folder  # noqa: PLC0415
    from yatsude.checkpoint.gguf import file as gguf  # noqa: PLC0415

    Folder(folder)  # a folder that holds no model lacks more than a licence
    refuse_without_licence(folder)
    figures = gguf.write(folder, file, dtype)
    if figures.wide:
        say(f"{figures.wide} matrices have rows that do not divide by 32: they stay in bf16")
    if (folder / "NOTICE").is_file():
        say(f"{folder / 'NOTICE'} holds the credits of the sources; pass it on with {file.name}")
    say(
        f"verified: {figures.tensors} tensors made of {figures.sources}, {figures.parameters:,} numbers,"
        f" {figures.file_bytes / 1e6:,.1f} MB, largest difference {figures.largest_error:.1e}"
    )
