"""`yatsude generate`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.spec.chat import TEMPERATURE, TOP_P

__all__ = ["command"]


def command(
    prompt: Annotated[str, typer.Argument(help="Beginning of the text.")],
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="Folder of a model; by default the run's pre-trained one.")
    ] = None,
    run: options.Run = Path("runs/default"),
    max_tokens: Annotated[int, typer.Option(help="Longest continuation, in tokens.")] = 100,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.")] = TEMPERATURE,
    top_p: Annotated[float, typer.Option(help="Draw from this share of the probability.")] = TOP_P,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    recipe: options.Recipe = None,
    sets: options.Sets = None,
) -> None:
    """Continue a text and print it as it is written."""
    settings = options.Settings(recipe, sets).of("engine")

    from yatsude.engine.load import load  # noqa: PLC0415
    from yatsude.engine.settings import SamplingSettings  # noqa: PLC0415

    engine = load(model or run / "train" / "model", settings)
    sampling = SamplingSettings(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    tokenizer = engine.tokenizer
    pieces = (delta.text for delta in engine.stream([*tokenizer.opening, *tokenizer.encode(prompt)], sampling))
    print(prompt + next(pieces, ""), end="", flush=True)  # not before the prompt is known to fit
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
