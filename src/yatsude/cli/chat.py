"""`yatsude chat`."""

from pathlib import Path
from typing import Annotated

import typer

from yatsude.cli import options
from yatsude.errors import RequestError
from yatsude.progress import say
from yatsude.spec.chat import TEMPERATURE, TOP_P

__all__ = ["command"]


def command(
    model: options.Model = None,
    run: options.Run = Path("runs/default"),
    system: Annotated[str, typer.Option(help="Message that stands before the conversation.")] = "",
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.")] = TEMPERATURE,
    top_p: Annotated[float, typer.Option(help="Draw from this share of the probability.")] = TOP_P,
    recipe: options.Recipe = None,
    sets: options.Sets = None,
) -> None:
    """Talk to a model; an empty line starts anew, Ctrl-D ends."""
    settings = options.Settings(recipe, sets).of("engine")

    from yatsude.engine.load import load  # noqa: PLC0415
    from yatsude.engine.settings import SamplingSettings  # noqa: PLC0415

    engine = load(model or run / "export", settings)
    sampling = SamplingSettings(temperature=temperature, top_p=top_p)
    beginning = [{"role": "system", "content": system}] if system else []
    messages = list(beginning)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if not line:
            messages = list(beginning)
            say("a new conversation")
            continue
        messages.append({"role": "user", "content": line})
        answer = ""
        try:
            for delta in engine.stream(engine.tokenizer.encode_chat(messages), sampling):
                answer += delta.text
                print(delta.text, end="", flush=True)
        except RequestError as error:
            say(f"{error} (an empty line)")
            messages.pop()
            continue
        print()
        messages.append({"role": "assistant", "content": answer})
