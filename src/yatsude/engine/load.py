"""From a model folder to an engine, in the precision that is fastest on this machine."""

import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from yatsude import manifest
from yatsude.checkpoint import hf
from yatsude.checkpoint.folder import Folder
from yatsude.engine.engine import Engine
from yatsude.engine.runner import Runner
from yatsude.engine.settings import EngineSettings
from yatsude.errors import CheckpointError, MachineError
from yatsude.model.transformer import Transformer
from yatsude.progress import say
from yatsude.spec.hf import TOKENIZER
from yatsude.tokenizer.tokenizer import Tokenizer

__all__ = ["faster", "load", "step_seconds"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEASURED_UP_TO = 2e9
"""Bytes on disk; a larger model is not measured, since it would have to be in memory twice, nor is its sum compared."""
WORTH_ROUNDING = 1.1
"""bf16 must be this many times as fast as fp32 before accuracy is given up for it."""
STEPS = 12


def load(folder: Path, settings: EngineSettings | None = None) -> Engine:
    """Load an exported model (config.json, safetensors, tokenizer) and print what was chosen, and why."""
    settings = settings or EngineSettings()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"no model in {folder}; 'yatsude train' and 'yatsude export' write one, or check the path"
        )
    if (folder / manifest.NAME).is_file() and _bytes(folder) <= MEASURED_UP_TO:
        manifest.check(folder, manifest.read(folder), "*.safetensors")
    tokenizer = Tokenizer.load(folder)
    rows = Folder(folder).config.vocab_size
    if tokenizer.vocab_size > rows:
        raise CheckpointError(
            f"{folder / TOKENIZER} has {tokenizer.vocab_size} tokens, the model rows for {rows}; give the tokenizer it"
            " was trained with"
        )
    model, reason = _model(folder, settings)
    say(f"engine: {reason}")
    return Engine(model, tokenizer, settings)


def _model(folder: Path, settings: EngineSettings) -> tuple[Transformer, str]:
    device = _device(settings)
    if settings.precision == "fp8":
        return hf.load_quantised(folder).to(device), "fp8 in memory, bf16 products, as set"
    if settings.precision != "auto":
        return hf.load(folder, dtype=DTYPES[settings.precision]).to(device), f"{settings.precision}, as set"
    if device.type != "cpu":
        return hf.load(folder, dtype=torch.bfloat16).to(device), f"bf16 on {device}, its native precision"
    size = _bytes(folder)
    if size > MEASURED_UP_TO:
        return hf.load(folder, dtype=torch.bfloat16), f"bf16, since a model of {size / 1e9:.1f} GB is bound by reading"
    return faster({name: hf.load(folder, dtype=dtype) for name, dtype in DTYPES.items()})


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def faster(models: dict[str, Transformer]) -> tuple[Transformer, str]:
    """Choose between the same model as `fp32` and as `bf16` by their speed here; the reason comes with it."""
    seconds = dict.fromkeys(models, math.inf)
    runs = {name: step_seconds(model, rows=1) for name, model in models.items()}
    for times in zip(*runs.values(), strict=True):  # in turn, so that a busy moment of the machine hits both
        for name, time_s in zip(models, times, strict=True):
            seconds[name] = min(seconds[name], time_s)
    chosen = "bf16" if seconds["bf16"] * WORTH_ROUNDING < seconds["fp32"] else "fp32"
    measured = ", ".join(f"{name} {1 / value:,.0f}" for name, value in seconds.items())
    rule = f"bf16 from {WORTH_ROUNDING:g} times on, {torch.get_num_threads()} threads"
    return models[chosen], f"{chosen}, since one answer gets, in tokens/s: {measured} ({rule})"


def step_seconds(model: Transformer, *, rows: int, steps: int = STEPS) -> Iterator[float]:
    """Seconds of one step that brings `rows` answers a token on: the median of 3, `steps` times."""
    context = min(model.config.max_position_embeddings, 64 + 3 * steps)
    runner = Runner(model, max_rows=rows, context=context, prefill_tokens=context)
    _step(runner, [[0] * 8] * rows)
    _step(runner, [[0]] * rows)
    for _ in range(steps):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            _step(runner, [[0]] * rows)
            times.append(time.perf_counter() - start)
        yield statistics.median(times)


@torch.inference_mode()  # here, not around a yield: two generators in turn would leave the mode on behind them
def _step(runner: Runner, tokens: list[list[int]]) -> None:
    runner.model.logits(runner.forward(tokens, 0)).argmax(-1).tolist()


def _device(settings: EngineSettings) -> torch.device:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise MachineError("engine.device = 'cuda': PyTorch sees no GPU; set it to 'auto' or 'cpu'")
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)
