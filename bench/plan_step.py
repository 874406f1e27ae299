"""Is the plan's arithmetic right where it can be measured? A step's time, predicted and measured on this machine.

    python bench/plan_step.py [--rounds 5]

Forward and backward of five presets in bf16 on one thread, in CPU time. Before each, a few products, an attention, a
pass over memory and small operations are timed: these rates are all that the plan is told of the machine. Prints both
times and the error of each; exit code 1 where one is above a fifth.
"""

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable

import torch

from yatsude.model.attention import attend
from yatsude.model.experts import grouped_product
from yatsude.model.init import initialise
from yatsude.model.loss import cross_entropy
from yatsude.model.transformer import Transformer
from yatsude.plan.job import Job
from yatsude.plan.rates import Rates, rates
from yatsude.plan.step import step
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset

CASES = (("nano", 8, 256), ("micro", 8, 256), ("tiny", 4, 512), ("mini", 4, 256), ("little", 2, 512))
"""Preset, sequences, tokens of each."""
MOST = 0.20
CPU = accelerator("cpu")


def main() -> int:
    """Measure, predict, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f}")
    errors = []
    for name, sequences, length in CASES:
        reached = _calibrate()
        measured, planned = _measured(name, sequences, length, rounds), _planned(name, sequences, length, reached)
        errors.append(planned / measured - 1)
        print(
            f"{name:>7}: {sequences} x {length} tokens, measured {measured:.3f} CPU-s, planned {planned:.3f}"
            f" ({100 * errors[-1]:+.0f} %); products {reached.matrix / 1e9:.0f} GFLOP/s, experts"
            f" {reached.grouped / 1e9:.0f}, attention {reached.attention / 1e9:.0f}, memory"
            f" {reached.bandwidth / 1e9:.0f} GB/s, an operation {reached.launch * 1e6:.1f} us"
        )
    return 0 if max(map(abs, errors)) <= MOST else 1


def _planned(name: str, sequences: int, length: int, reached: Rates) -> float:
    job = Job(
        config=preset(name), accelerator=CPU, gpus=1, sequence=length, batch=sequences, imbalance=1.0, measured=reached
    )
    found = step(job, ParallelSettings(micro_batches=1))
    return found.seconds - found.terms["optimizer"]


def _measured(name: str, sequences: int, length: int, rounds: int) -> float:
    config = preset(name)
    model = Transformer(config)
    initialise(model, 0)
    model = model.to(torch.bfloat16)
    tokens = torch.randint(0, config.vocab_size, (sequences, length))
    targets = tokens.roll(-1, 1).flatten()

    def run() -> None:
        hidden = model(tokens).flatten(0, 1)
        cross_entropy(hidden, model.lm_head.weight, targets, 1 / targets.numel()).backward()
        model.zero_grad()

    return _time(run, rounds)


def _calibrate() -> Rates:
    """Rates of this machine now, at about the shapes of small presets."""
    left, right = (torch.randn(1024, 1024, dtype=torch.bfloat16) for _ in range(2))
    rows, weights = torch.randn(1024, 512, dtype=torch.bfloat16), torch.randn(8, 512, 512, dtype=torch.bfloat16)
    heads = [torch.randn(4, 6, 256, 64, dtype=torch.bfloat16) for _ in range(3)]
    counts, field, one = torch.full((8,), 128), torch.randn(2**23, dtype=torch.bfloat16), torch.randn(8)
    twice = torch.empty_like(field)
    matrix = 2 * 1024**3 / _time(lambda: left @ right)
    return dataclasses.replace(
        rates(CPU),
        matrix=matrix,
        plain=matrix,
        grouped=2 * rows.numel() * 512 / _time(lambda: grouped_product(rows, weights, counts)),
        attention=2 * 4 * 6 * 256 * (64 + 64) * 257 / 2 / _time(lambda: attend(*heads, None, 0.125)),
        bandwidth=2 * 2 * field.numel() / _time(lambda: torch.mul(field, 2, out=twice)),
        launch=_time(lambda: [one.add(1) for _ in range(1000)]) / 1000,
    )


def _time(run: Callable[[], object], rounds: int = 7) -> float:
    """Median CPU seconds, after one run for nothing."""
    run()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


if __name__ == "__main__":
    raise SystemExit(main())
