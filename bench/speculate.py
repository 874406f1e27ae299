"""What guessing a token ahead brings: steps and time with and without it, for a model with a layer that does.

    yatsude train --run runs/ahead --set model.num_nextn_predict_layers=1 ...
    python bench/speculate.py runs/ahead/train/model

Both engines take turns, one thread, fp32; figures are tokens per CPU second and tokens a step, medians over the rounds.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from yatsude.checkpoint import hf
from yatsude.engine.engine import Engine
from yatsude.engine.settings import EngineSettings, SamplingSettings
from yatsude.tokenizer.tokenizer import Tokenizer

PROMPTS = ("今日は", "この関数は", "彼女は昨日", "ファイルの", "私たちは")
TOKENS = 96


def main() -> int:
    """Take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(options.model)
    prompts = [[*tokenizer.opening, *tokenizer.encode(text)] for text in PROMPTS]
    for rows in (1, 5):
        engines = {
            guessing: Engine(
                hf.load(options.model, torch.float32), tokenizer, EngineSettings(max_rows=rows, speculate=guessing)
            )
            for guessing in (False, True)
        }
        for name, temperature in (("greedy", 0.0), ("temperature 0.7", 0.7)):
            settings = SamplingSettings(temperature=temperature, seed=1, max_tokens=TOKENS, ignore_end=True)
            figures: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
            said = []
            for _ in range(options.rounds):
                for guessing, engine in engines.items():
                    rate, steps, texts = measured(engine, prompts, settings)
                    figures[guessing].append((rate, steps))
                    said.append(texts)
            plain, ahead = (tuple(map(statistics.median, zip(*figures[g], strict=True))) for g in (False, True))
            print(
                f"{rows} at a time, {name}: {plain[0]:.0f} tokens/CPU-s plain, {ahead[0]:.0f} guessing"
                f" ({ahead[0] / plain[0]:.2f} times), {plain[1] / ahead[1]:.2f} times fewer steps;"
                f" answers {'equal' if all(texts == said[0] for texts in said) else 'DIFFER (rounding)'}"
            )
    return 0


def measured(engine: Engine, prompts: list[list[int]], settings: SamplingSettings) -> tuple[float, float, list[str]]:
    """Tokens per CPU second, passes through the model, and the texts."""
    passes = 0
    forward = engine.runner.forward

    def counted(*args: object) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return forward(*args)  # type: ignore[arg-type]

    engine.runner.forward = counted  # type: ignore[method-assign]
    start = time.process_time()
    answers = engine.generate(prompts, settings)
    seconds = time.process_time() - start
    engine.runner.forward = forward  # type: ignore[method-assign]
    return sum(len(answer.tokens) for answer in answers) / seconds, passes, [answer.text for answer in answers]


if __name__ == "__main__":
    sys.exit(main())
