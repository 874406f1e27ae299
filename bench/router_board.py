"""Do experts specialise? A trained model against itself before training, and against kinds that mean nothing.

    python bench/router_board.py runs/default

Prints what experts tell about kind and style of the held-out text, in bits, for the run's model and for the same model
of random weights; then p for one kind of text that is split at random into two, twenty times: about one in twenty
should lie below 0.05. Exit code 1 where more than four do.
"""

import argparse
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from yatsude.checkpoint import hf
from yatsude.evaluate import heldout, router
from yatsude.evaluate.results import ExpertLoad
from yatsude.evaluate.settings import EvaluateSettings
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.tokenizer.tokenizer import Tokenizer

SPLITS, MOST = 20, 4
SETTINGS = EvaluateSettings()


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(run / "tokenizer")
    trained = hf.load(run / "train" / "model", torch.float32).eval()
    fresh = Transformer(trained.config).eval()
    initialise(fresh, 0)
    kinds = {name: list(part.documents()) for name, part in heldout.parts(run / "tokenizer" / "held_out").items()}
    print(f"load {os.getloadavg()[0]:.1f}")
    for name, model in (("trained", trained), ("random weights", fresh)):
        start = time.process_time()
        found = _board(model, tokenizer, kinds)
        print(f"{name}, {time.process_time() - start:.1f} CPU-s")
        for about, told in found.findings.items():
            mean = told.mean if told else None
            print(f"  {about}: {mean.bits:.4f} bits ({mean.chance:.4f}), p = {mean.p:.3f}" if mean else f"  {about}: -")
    chances = _split_at_random(trained, tokenizer, max(kinds.values(), key=len))
    below = sum(p < 0.05 for p in chances)
    print(f"split at random: p from {min(chances):.3f} to {max(chances):.3f}, {below} of {SPLITS} below 0.05")
    return 0 if below <= MOST else 1


def _split_at_random(model: Transformer, tokenizer: Tokenizer, documents: list[heldout.Tokens]) -> list[float]:
    found = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(documents))
        halves = {name: [documents[n] for n in order[start::2]] for start, name in enumerate(("one", "other"))}
        told = _board(model, tokenizer, halves).by_kind
        found.append(told.mean.p if told else 1.0)
    return found


def _board(model: Transformer, tokenizer: Tokenizer, kinds: Mapping[str, Iterable[heldout.Tokens]]) -> ExpertLoad:
    return router.measure(
        model,
        tokenizer,
        kinds,
        window=SETTINGS.window,
        tokens=SETTINGS.router_tokens,
        shuffles=SETTINGS.router_shuffles,
        seed=SETTINGS.seed,
    )


if __name__ == "__main__":
    raise SystemExit(main())
