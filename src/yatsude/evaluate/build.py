"""From a trained model to a report: the stage `evaluate`.

FOLDER/report.html     one self-contained page        FOLDER/recipe.toml     the resolved settings
FOLDER/figures.json    headline and details           FOLDER/manifest.json   what was evaluated, and all licences
FOLDER/router.jsonl    the router board, see board.py
"""

import dataclasses
import json
import time
from pathlib import Path

from pydantic import TypeAdapter

from yatsude import manifest, recipe
from yatsude.errors import DataError
from yatsude.evaluate import board, report
from yatsude.evaluate.measure import Inputs, measure
from yatsude.evaluate.results import Chat, Crossing, Results, total
from yatsude.evaluate.settings import EvaluateSettings
from yatsude.files import new_file, new_folder
from yatsude.progress import say

__all__ = ["STAGE", "Summary", "build"]

STAGE = "evaluate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What an evaluation came to."""

    report: Path
    bits_per_character: float
    ngrams: dict[int, float]
    """Bits per character of each order on the same text."""
    passed: list[int]
    """Orders that the model beats."""
    crossings: tuple[Crossing, ...]
    chat: dict[str, bool] | None
    """The three bars; None without a chat model."""
    seconds: float


def build(
    settings: EvaluateSettings,
    model_folder: Path,
    data_folder: Path,
    tokens_folder: Path,
    folder: Path,
    *,
    train_log: Path | None = None,
    tune_log: Path | None = None,
    chat_model: Path | None = None,
) -> Summary:
    """Measure a pre-trained model on held-out text, and a tuned one on chat prompts; `folder` appears whole or not."""
    start = time.perf_counter()
    inputs = [model_folder, data_folder, tokens_folder, *([chat_model] if chat_model else [])]
    _check(model_folder, data_folder, tokens_folder)
    for place in inputs:
        manifest.check(place, manifest.read(place))
    places = Inputs(
        model=model_folder,
        data=data_folder,
        tokens=tokens_folder,
        train_log=train_log,
        tune_log=tune_log,
        chat_model=chat_model,
    )
    found = measure(settings, places)
    say(board.screen(found.experts))
    summary = _summary(found, folder, start)
    headline = _headline(summary, found.chat)
    with new_folder(folder) as draft:
        report.page(found).write(draft / "report.html")
        board.write(draft / "router.jsonl", found.experts)
        with new_file(draft / "figures.json") as file:
            details = TypeAdapter(Results).dump_python(found, mode="json")
            file.write_text(
                json.dumps({**headline, "results": details}, ensure_ascii=False, indent=1), encoding="utf-8"
            )
        digest = recipe.write(draft / "recipe.toml", {STAGE: settings})
        manifest.write(draft, STAGE, inputs=inputs, counts=headline, recipe_sha256=digest)
    _tell(summary)
    return summary


def _check(model_folder: Path, data_folder: Path, tokens_folder: Path) -> None:
    """The three folders must belong together: one text, one tokenizer."""
    manifest.read(data_folder, "data")
    tokens, model = manifest.read(tokens_folder, "tokenizer"), manifest.read(model_folder)
    name = "tokenizer.json"
    if name not in model.files or model.files[name].sha256 != tokens.files[name].sha256:
        raise DataError(
            f"{model_folder} has another tokenizer than {tokens_folder};"
            f" give the tokenizer folder that it was trained from"
        )
    if not manifest.made_from(tokens, data_folder):
        raise DataError(
            f"{tokens_folder} was made from other text than {data_folder}; give the data folder it was made from,"
            " or run 'yatsude tokenizer' again"
        )


def _summary(found: Results, folder: Path, start: float) -> Summary:
    return Summary(
        report=folder / "report.html",
        bits_per_character=total(found.quality.model.values()).per_character,
        ngrams={n.order: total(n.kinds.values()).per_character for n in found.quality.ngrams},
        passed=found.quality.passed,
        crossings=found.training.crossings if found.training else (),
        chat=found.chat.passed if found.chat else None,
        seconds=time.perf_counter() - start,
    )


def _headline(summary: Summary, answers: Chat | None) -> dict[str, int | float | str]:
    """The figures that a model card quotes, flat."""
    found: dict[str, int | float | str] = {"held_out_bits_per_character": round(summary.bits_per_character, 4)}
    found |= {f"{order}-gram_bits_per_character": round(value, 4) for order, value in summary.ngrams.items()}
    if answers:
        number = len(answers.answers)
        if answers.japanese is not None:
            found["japanese_share_of_answers"] = round(answers.japanese, 4)
        found["answers_that_ended"] = f"{answers.ended} of {number}"
        found["answers_that_repeat"] = f"{answers.repeating} of {number}"
    return found


def _tell(summary: Summary) -> None:
    lines = ", ".join(f"{order}-gram {value:.3f}" for order, value in summary.ngrams.items())
    say(f"held-out text: {summary.bits_per_character:.3f} bits per character ({lines})")
    if summary.chat:
        say("chat: " + ", ".join(f"{name} {'passed' if good else 'not passed'}" for name, good in summary.chat.items()))
