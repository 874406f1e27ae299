"""Bits per character after equal minutes: the mixture, two dense models in the same loop, and character n-grams.

    python bench/quality.py --minutes 8                     wall-clock time, all cores
    python bench/quality.py --minutes 8 --threads 1         CPU time of one thread, which holds on a busy machine

The text is that of a run folder (default: runs/quality, made from the default sources). The dense models have the
mixture's shape with all layers dense: one as wide as what a token meets of the mixture (the active size), one as wide
as all its experts together (the total size). Each contender gets its steps from its own measured speed;
the bigram start is part of the minutes.
"""

import argparse
import dataclasses
import json
import platform
import subprocess
import time
from pathlib import Path

import torch

from yatsude import manifest
from yatsude.data.build import build as build_data
from yatsude.data.settings import DataSettings
from yatsude.evaluate.build import build as evaluate
from yatsude.evaluate.settings import EvaluateSettings
from yatsude.shards import Shards
from yatsude.spec.counts import count
from yatsude.spec.settings import ModelSettings, resolve
from yatsude.tokenizer.build import build as build_tokenizer
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.train.build import build as train
from yatsude.train.choose import TUNE_SHARE, choose
from yatsude.train.settings import TrainSettings

ORDERS = (3, 4, 5)


def main() -> None:
    """Train the contenders one after the other and print one table."""
    arguments = _arguments()
    run: Path = arguments.run
    if not (run / "data" / manifest.NAME).is_file():
        build_data(DataSettings(), run / "data")
    if not (run / "tokenizer" / manifest.NAME).is_file():
        build_tokenizer(TokenizerSettings(), run / "data", run / "tokenizer")
    threads = arguments.threads or torch.get_num_threads()
    print(f"{platform.machine()}, {threads} threads, commit {_commit()}, {arguments.minutes:g} minutes each")
    rows = []
    ngrams: dict[str, float] = {}
    for name, model in contenders(ModelSettings(preset=arguments.preset)).items():
        if arguments.only and name not in arguments.only:
            continue
        row, ngrams = _contend(name, model, arguments)
        rows.append(row)
        print(json.dumps(row), flush=True)
    for order, bits in ngrams.items():
        print(f"{order}-gram{'':24} {bits:8.3f}")
    for row in rows:
        print("{name:16} {total_m:6.1f} M {active_m:6.1f} M {bits:8.3f}  crossed: {crossed}".format(**row))


def contenders(mixture: ModelSettings) -> dict[str, ModelSettings]:
    """The mixture and the two dense models that it is held against."""
    config = resolve(mixture, 8192)
    layers, width = config.num_hidden_layers, config.moe_intermediate_size
    active = width * (config.num_experts_per_tok + config.n_shared_experts)
    total = width * (config.n_routed_experts + config.n_shared_experts)
    dense = {
        name: dataclasses.replace(mixture, first_k_dense_replace=layers, intermediate_size=size)
        for name, size in (("dense, active", active), ("dense, total", total))
    }
    return {"mixture": mixture, **dense}


def _contend(
    name: str, model: ModelSettings, arguments: argparse.Namespace
) -> tuple[dict[str, object], dict[str, float]]:
    run: Path = arguments.run
    settings = TrainSettings(workers=arguments.threads, evaluations=16, seed=arguments.seed)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    shards = Shards(run / "tokenizer" / "train")
    choice = choose(
        arguments.minutes / (1 - TUNE_SHARE),  # all of the minutes are for training here
        run / "tokenizer",
        model,
        settings,
        fixed=frozenset({"preset"}),
        clock=clock,
    )
    print("\n".join(choice.reasons), flush=True)
    settings = choice.train
    folder = run / name.replace(", ", "-")
    start = time.process_time()
    summary = train(model, settings, run / "tokenizer", folder, restart=True)
    cpu_seconds = time.process_time() - start
    found = evaluate(
        EvaluateSettings(samples=0, orders=ORDERS),
        summary.model, run / "data", run / "tokenizer", folder / "evaluate", train_log=folder / "log.jsonl",
    )  # fmt: skip
    counts = count(resolve(model, shards.vocab_size))
    row = {
        "name": name,
        "total_m": counts.total / 1e6,
        "active_m": counts.active / 1e6,
        "tokens": summary.tokens,
        "seconds": round(summary.seconds),
        "cpu_seconds": round(cpu_seconds),
        "bits": found.bits_per_character,
        "crossed": [dataclasses.asdict(crossing) for crossing in found.crossings],
    }
    return row, {str(k): v for k, v in found.ngrams.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="training time of each contender")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--threads", type=int, default=0, help="workers; 0: one a core")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, default=Path("runs/quality"))
    parser.add_argument("--only", nargs="*", help="names of contenders")
    return parser.parse_args()


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()


if __name__ == "__main__":
    main()
