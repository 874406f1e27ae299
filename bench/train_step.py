"""One training step of ours against transformers' DeepseekV3ForCausalLM: same weights, same packed batches, AdamW.

A step is forward and backward with a mask over documents, gradient norm with clipping, update, and for ours the update
of the routers' biases. All contenders take turns in one process, one thread each, of two steps, the second of which
counts. The figure is tokens per second of CPU time, median over the rounds: it holds while other work runs on the
machine. Each round multiplies square matrices too: what the machine can do at that moment. A token's operations are
those of `spec.counts.training_flops` (e8 154.5 MFLOP, e32 142.5). Wall-clock on two threads does not hold beside other
work; the load is printed beside it.

    python bench/train_step.py [--quick] [e8] [e32]
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from contenders import (
    CONFIGS,
    DEFAULT,
    DENSE_ACTIVE,
    DENSE_TOTAL,
    LENGTH,
    OURS,
    PLAIN,
    ROWS,
    Batch,
    Step,
    batches,
    contenders,
    model,
    ours,
)

from yatsude.machine import keep_freed_memory
from yatsude.model.native import library
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import count, training_flops
from yatsude.train.workers import Workers

MOST_DIFFERENCE = 0.02
WARM = 1
PEAK = "peak"
SIZES = (512, 1024, 2048)
PEAK_SHARE = {"e8": (0.6, 0.65), "e32": (0.5, 0.65)}
Rates = dict[str, list[float]]


def main() -> int:
    """Measure and print; 1 if the losses differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", choices=[*CONFIGS, []], help="which models; default: all")
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    keep_freed_memory()
    machine()
    agree = [measure(name, CONFIGS[name], 3 if arguments.quick else 9) for name in arguments.configs or CONFIGS]
    return 0 if all(agree) else 1


def machine() -> None:
    """Print where this runs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    compiled = "with" if library.usable(torch.zeros(1)) else "without"
    print(f"machine        {name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"products       bf16 {peak(torch.bfloat16):.0f} GFLOP/s, fp32 {peak(torch.float32):.0f}, one thread")
    print(f"commit         {commit.stdout.strip()}, {compiled} compiled passes")
    print(f"               torch {torch.__version__}, transformers {transformers.__version__}")


def peak(dtype: torch.dtype = torch.bfloat16) -> float:
    """GFLOP per CPU-second of the fastest of some square products, whose median counts."""
    return max(product_speed(dtype, size) for size in SIZES)


def product_speed(dtype: torch.dtype, size: int) -> float:
    """GFLOP per CPU-second of a square product, median."""
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    out = left @ right
    seconds = []
    for _ in range(max(3, 2**33 // size**3 // 8)):
        start = time.process_time()
        torch.mm(left, right, out=out)
        seconds.append(time.process_time() - start)
    return 2e-9 * size**3 / statistics.median(seconds)


def measure(name: str, config: ModelConfig, rounds: int) -> bool:
    """Print all figures of one model; whether the losses agree."""
    counts = count(config)
    print(f"\n{name:14} {counts.total / 1e6:.1f} M parameters, {counts.active / 1e6:.1f} M active, {ROWS} x {LENGTH}")
    samples = batches(3, config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        steps = contenders(config, Path(folder))
    agree = losses_agree(steps, samples)
    rates = timed(steps, samples[0], rounds, time.process_time, peak)
    report(name, config, rates)
    both_cores(config, steps, best(rates), samples[0], rounds)
    return agree


def losses_agree(steps: dict[str, Step], samples: list[Batch]) -> bool:
    """Print the first losses of ours and the peer's fp32, and the largest difference."""
    mine, peers = ([steps[name](batch) for batch in samples] for name in (OURS, DEFAULT))
    most = max(abs(a - b) for a, b in zip(mine, peers, strict=True))
    print(f"first losses   yatsude bf16 {_list(mine)}   transformers fp32 {_list(peers)}")
    print(f"               largest difference {most:.4f} (at most {MOST_DIFFERENCE})")
    return most <= MOST_DIFFERENCE


def timed(
    steps: dict[str, Step],
    batch: Batch,
    rounds: int,
    clock: Callable[[], float],
    also: Callable[[], float] | None = None,
) -> Rates:
    """Take turns of two steps, of which the second counts: in training a step follows another of its own kind.

    Tokens per second of each step, round by round, and as PEAK what `also` returns each time.
    """
    rates: Rates = {name: [] for name in (*steps, PEAK)}
    for turn in range(-WARM, rounds):
        for name, step in steps.items():
            step(batch)
            start = clock()
            step(batch)
            if turn >= 0:
                rates[name].append(batch.tokens.numel() / (clock() - start))
        if also and turn >= 0:
            rates[PEAK].append(also())
    return rates


def report(name: str, config: ModelConfig, rates: Rates) -> None:
    """Print the table of one thread, and what it says to the bars."""
    print(f"\n{name + ', one thread':46} {'tokens per CPU second':>22} {'lowest':>8} {'highest':>8}")
    for contender, each in rates.items():
        if contender != PEAK:
            print(f"{contender:46} {statistics.median(each):22,.0f} {min(each):8,.0f} {max(each):8,.0f}")
    print(f"{'bf16 products, GFLOP per CPU second':46} {statistics.median(rates[PEAK]):22,.0f}")
    usual = {contender: each for contender, each in rates.items() if PLAIN not in contender}
    for word, among in (("best", rates), ("best with its default attention", usual)):
        verdict(f"beside its {word} ({best(among)})", ratio(rates, OURS, best(among)), 1.5, 1.6)
    verdict("beside its default", ratio(rates, OURS, DEFAULT))
    share = ratio(rates, OURS, PEAK) * training_flops(config, LENGTH) / 1e9
    verdict("share of the bf16 peak", share, *PEAK_SHARE[name])
    verdict("beside the dense model of the same active size", ratio(rates, OURS, DENSE_ACTIVE), 0.85)
    verdict("beside the dense model of the same total size", ratio(rates, OURS, DENSE_TOTAL), 1.7)


def both_cores(config: ModelConfig, steps: dict[str, Step], peer: str, batch: Batch, rounds: int) -> None:
    """Print tokens per second of two threads: ours has two workers, the peer two threads inside each product."""
    two = f"{OURS}, two workers"
    torch.set_num_threads(2)
    with Workers(2) as workers:
        pair = {two: ours(model(config), torch.bfloat16, workers), peer: steps[peer]}
        rates = timed(pair, batch, rounds, time.perf_counter)
    torch.set_num_threads(1)
    print(
        f"\n{'two threads':46} {'tokens per second':>22} {'lowest':>8} {'highest':>8}   load {os.getloadavg()[0]:.1f}"
    )
    for contender in pair:
        each = rates[contender]
        print(f"{contender:46} {statistics.median(each):22,.0f} {min(each):8,.0f} {max(each):8,.0f}")
    verdict("beside its best, two threads", ratio(rates, two, peer), 1.9, 2.0)


def ratio(rates: Rates, one: str, other: str) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))


def verdict(what: str, value: float, bar: float | None = None, goal: float | None = None) -> None:
    """Print a figure and whether it reaches its bar and its goal."""
    words = [
        f"{word} {level}: {'reached' if value >= level else 'missed'}"
        for word, level in (("bar", bar), ("goal", goal))
        if level is not None
    ]
    print(f"  {what}: {value:.2f}  {', '.join(words)}")


def best(rates: Rates) -> str:
    """Name of the peer's fastest variant."""
    return max((name for name in rates if name.startswith("transformers")), key=lambda n: statistics.median(rates[n]))


def _list(values: list[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
