"""All measurements of one evaluation, the n-grams beside the model: `Results` from folders."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import torch

from yatsude import manifest
from yatsude.engine.engine import Engine
from yatsude.engine.load import load
from yatsude.engine.settings import EngineSettings
from yatsude.evaluate import bits, chat, curve, heldout, machine, ngrams, router, samples
from yatsude.evaluate.results import Bits, ExpertLoad, Quality, Results, Sample, Source
from yatsude.evaluate.settings import EvaluateSettings
from yatsude.progress import bar, say
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import count, read_bytes, resident_bytes

__all__ = ["Inputs", "measure"]

AT_ONCE_S = 0.5
"""n-gram figures that are kept from an earlier evaluation are there within this time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Folders of the stages before this one, and the logs of their runs."""

    model: Path
    data: Path
    tokens: Path
    train_log: Path | None = None
    tune_log: Path | None = None
    chat_model: Path | None = None


def measure(settings: EvaluateSettings, inputs: Inputs) -> Results:
    """Measure the model, and on another core the n-grams of the same text."""
    train_log = _own(inputs.train_log, inputs.model, "tokens_seen")
    tune_log = _own(inputs.tune_log, inputs.chat_model, "tuning_tokens_seen")
    texts, names = (rows[: settings.documents] for rows in heldout.texts(inputs.data, inputs.tokens, "held_out"))
    validation, _ = heldout.texts(inputs.data, inputs.tokens, "validation")
    validation = validation[: curve.evaluation_documents(train_log) if train_log else 0]
    fitted = ngrams.background(
        functools.partial(ngrams.measure, inputs.data, settings.orders, texts, names, validation)
    )
    asked = chat.prompts(inputs.data, settings.chat_prompts) if inputs.chat_model else []
    with _one_core_less(fitted):
        config, mine, experts, shown = _model(settings, inputs)
        answers = chat.ask(_load(settings, inputs.chat_model), asked, settings) if inputs.chat_model else None
        if not fitted.done():
            say("n-grams: still fitting")
        theirs = fitted.result()
    return Results(
        quality=Quality(model=mine, ngrams=theirs, documents=len(texts)),
        training=curve.read(train_log, theirs) if train_log else None,
        tuning=curve.read(tune_log) if tune_log else None,
        experts=experts,
        samples=shown,
        chat=answers,
        parameters=_numbers(config),
        parts=_parts(config),
        text={name: n for name, n in manifest.read(inputs.tokens).counts.items() if isinstance(n, int)},
        sources=tuple(
            Source(name=entry.source, licence=entry.licence, attribution=entry.attribution, url=entry.url)
            for entry in manifest.read(inputs.model).licences
        ),
        machine=machine.describe(),
    )


def _own(log: Path | None, model: Path | None, count: str) -> Path | None:
    """The log, if it is of the run that made `model`: its manifest says under `count` how many tokens that saw."""
    if log is None or model is None:
        return None
    tokens = curve.read(log).tokens
    if manifest.read(model).counts.get(count, tokens) == tokens:
        return log
    say(f"{log} is not the whole log of the run that made {model}: the report goes without it")
    return None


def _model(
    settings: EvaluateSettings, inputs: Inputs
) -> tuple[ModelConfig, dict[str, Bits], ExpertLoad, tuple[Sample, ...]]:
    """Everything that the pre-trained model alone is asked; it is out of memory afterwards."""
    engine = _load(settings, inputs.model)
    model, held_out = engine.runner.model, inputs.tokens / "held_out"
    kinds = heldout.parts(held_out, settings.documents)
    with bar("score held-out text", sum(int(p.characters.sum()) for p in kinds.values()), "characters") as progress:
        mine = bits.measure(model, heldout.parts(held_out, settings.documents, progress.advance), settings.window)
    experts = router.measure(
        model,
        engine.tokenizer,
        {name: part.documents() for name, part in kinds.items()},
        window=settings.window,
        tokens=settings.router_tokens,
        shuffles=settings.router_shuffles,
        seed=settings.seed,
    )
    return model.config, mine, experts, samples.continue_beginnings(engine, kinds, settings)


def _load(settings: EvaluateSettings, folder: Path) -> Engine:
    return load(folder, EngineSettings(precision=settings.precision, device="cpu"))


@contextlib.contextmanager
def _one_core_less(fitted: Future[Any]) -> Iterator[None]:
    """Leave a core to the n-grams while they are fitted: products of many threads wait for the slowest."""
    threads = torch.get_num_threads()
    wait([fitted], AT_ONCE_S)
    torch.set_num_threads(threads if fitted.done() else max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _numbers(config: ModelConfig) -> dict[str, int]:
    counts = count(config)
    return {
        "total": counts.total,
        "active": counts.active,
        "resident_bytes": resident_bytes(config),
        "read_bytes": read_bytes(config),
    }


def _parts(config: ModelConfig) -> dict[str, tuple[int, int]]:
    counts = count(config)
    return {name: (number, counts.active_parts[name]) for name, number in counts.parts.items()}
