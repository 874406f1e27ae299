"""Is the plan's arithmetic right where it can be measured? A step's time, predicted and measured on this machine.

    python bench/plan_step.py [--rounds 5]

Forward and backward of five presets in bf16 on one thread, in CPU time. Before and after each, the products of its
layers, an attention, a pass over memory and small operations are timed (`train/calibrate.py`): these rates are all that
the plan is told of the machine, and the mean of its two answers counts, since others may work here too. Prints both
times and the error of each; exit code 1 where one is above a fifth.
"""

import argparse
import dataclasses
import os
import statistics

import torch

from yatsude.model.init import initialise
from yatsude.model.loss import cross_entropy
from yatsude.model.transformer import Transformer
from yatsude.plan.job import Job
from yatsude.plan.rates import Rates, rates
from yatsude.plan.step import step
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset
from yatsude.train.calibrate import calibrate, median_seconds

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
        before, measured, reached = _calibrated(name), _measured(name, sequences, length, rounds), _calibrated(name)
        planned = statistics.fmean(_planned(name, sequences, length, one) for one in (before, reached))
        errors.append(planned / measured - 1)
        print(
            f"{name:>7}: {sequences} x {length} tokens, measured {measured:.3f} CPU-s, planned {planned:.3f}"
            f" ({100 * errors[-1]:+.0f} %); products {reached.matrix / 1e9:.0f} GFLOP/s, experts"
            f" {reached.grouped / 1e9:.0f}, attention {reached.attention / 1e9:.0f}, memory"
            f" {reached.bandwidth / 1e9:.0f} GB/s, an operation {reached.launch * 1e6:.1f} us"
        )
    return 0 if max(map(abs, errors)) <= MOST else 1


def _calibrated(name: str) -> Rates:
    return dataclasses.replace(rates(CPU), **calibrate(preset(name)))


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

    return median_seconds(run, rounds=rounds)


if __name__ == "__main__":
    raise SystemExit(main())
