"""`yatsude router`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yatsude.cli import options
from yatsude.errors import DataError
from yatsude.progress import say

if TYPE_CHECKING:
    from yatsude.evaluate.heldout import Tokens
    from yatsude.tokenizer.tokenizer import Tokenizer

__all__ = ["command"]


def command(
    model: options.Model = None,
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", help="A file, or a folder of files, of one kind of text; may be repeated."),
    ] = None,
    run: options.Run = Path("runs/default"),
    out: Annotated[Path | None, typer.Option(help="Folder for router.jsonl and router.html.")] = None,
    recipe: options.Recipe = None,
    sets: options.Sets = None,
) -> None:
    """Show which experts of a model fire for which kind of text, and whether that is beyond chance."""
    settings = options.Settings(recipe, sets).of("evaluate")
    kinds = _kinds(text or [])

    from yatsude.engine.load import load  # noqa: PLC0415
    from yatsude.engine.settings import EngineSettings  # noqa: PLC0415
    from yatsude.evaluate import board, router, router_page  # noqa: PLC0415
    from yatsude.report.page import Page  # noqa: PLC0415

    folder = model or run / "export"
    engine = load(folder, EngineSettings(precision=settings.precision))
    network, tokenizer = engine.runner.model, engine.tokenizer
    window = min(settings.window, network.config.context)
    found = router.measure(
        network,
        tokenizer,
        {kind: _windows(tokenizer, path, window) for kind, path in kinds.items()},
        window=window,
        tokens=settings.router_tokens,
        shuffles=settings.router_shuffles,
        seed=settings.seed,
    )
    print(board.screen(found))
    if out:
        page = Page("専門家の盤 · Router board", lead=folder.resolve().name)
        router_page.section(page, found)
        page.write(out / "router.html")
        board.write(out / "router.jsonl", found)
        say(f"the board is in {out}: router.html, router.jsonl")


def _kinds(paths: list[Path]) -> dict[str, Path]:
    """The name of each file, without its endings, is the kind of its text."""
    if not paths:
        raise DataError("no text to show the experts; give --text FILE for each kind of text")
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise DataError(f"no file or folder at {path}; check the path after --text")
        kind = path.name.split(".")[0] or path.name
        if kind in found:
            raise DataError(
                f"{found[kind]} and {path} are both of the kind '{kind}'; rename one, or make them a folder"
            )
        found[kind] = path
    return found


def _windows(tokenizer: "Tokenizer", path: Path, window: int) -> Iterator["Tokens"]:
    """All of a text in documents that fill a window each, as `Shards` give them."""
    import numpy as np  # noqa: PLC0415

    empty = True
    for whole in _texts(path):
        ids = tokenizer.encode(whole)
        for start in range(0, len(ids), window - 1):
            empty = False
            yield np.array([*tokenizer.opening, *ids[start : start + window - 1], tokenizer.text])
    if empty:
        raise DataError(f"{path} holds no text; give --text a file with some")


def _texts(path: Path) -> Iterator[str]:
    """Texts of a file or folder that `file:` sources read, or all of another file."""
    from yatsude.data.catalogue import find  # noqa: PLC0415
    from yatsude.data.sources import files  # noqa: PLC0415

    if path.is_dir() or path.name.lower().endswith(files.ENDINGS):
        yield from (document.text for document in files.read(find(f"file:{path}"), path))
        return
    try:
        yield path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: byte at offset {error.start}; convert it with iconv") from None
