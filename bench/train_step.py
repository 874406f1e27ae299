"""One training step of ours against transformers' DeepseekV3ForCausalLM: same weights, same batches, torch's AdamW.

A step is forward, backward, gradient norm with clipping, and update. All contenders take turns in one process, one
thread each, and the figure is tokens per second of CPU time, median over the rounds: it holds while other work runs
on the machine. Wall-clock on two threads does not; there the load is printed beside it.

    python bench/train_step.py [--quick]
"""

import argparse
import math
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
from torch import Tensor

from yatsude.checkpoint import hf
from yatsude.machine import keep_freed_memory
from yatsude.model.init import initialise
from yatsude.model.loss import IGNORED, cross_entropy
from yatsude.model.transformer import Transformer
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import count
from yatsude.train.balance import balance
from yatsude.train.optimizer import Optimizer
from yatsude.train.settings import OptimizerSettings
from yatsude.train.weights import Weights
from yatsude.train.workers import Workers

E8 = ModelConfig(
    vocab_size=16384,
    hidden_size=384,
    num_hidden_layers=8,
    intermediate_size=1536,
    moe_intermediate_size=512,
    num_attention_heads=8,
    kv_lora_rank=128,
    q_lora_rank=192,
    qk_nope_head_dim=32,
    qk_rope_head_dim=32,
    v_head_dim=64,
    n_routed_experts=8,
    num_experts_per_tok=2,
    n_shared_experts=1,
    first_k_dense_replace=1,
)
ROWS, LENGTH = 8, 256
RATE, BETAS, EPSILON, CLIP = 1e-3, (0.9, 0.95), 1e-8, 1.0
MOST_DIFFERENCE = 0.02
BARS = {"its best": 1.2, "its default": 3.0}
DEFAULT = "transformers fp32, grouped (its default)"

Step = Callable[[Tensor], float]


def ours(model: Transformer, dtype: torch.dtype, workers: Workers, muon: bool = False) -> Step:
    """Return our step as the training loop takes it."""
    settings = OptimizerSettings(
        muon=muon,
        clip=CLIP,
        rate=RATE,
        embedding_rate=RATE,
        beta1=BETAS[0],
        beta2=BETAS[1],
        epsilon=EPSILON,
        weight_decay=0.0,
    )
    weights = Weights(model, dtype, workers.count)
    optimizer = Optimizer(settings, weights)

    def backward(part: tuple[Transformer, Tensor]) -> float:
        replica, ids = part
        targets = torch.cat((ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)), 1).flatten()
        scale = 1 / (ROWS * (LENGTH - 1))
        loss = cross_entropy(replica(ids).flatten(0, 1), replica.lm_head.weight, targets, scale)
        loss.backward()
        return loss.item()

    def step(ids: Tensor) -> float:
        parts = zip(weights.replicas, ids.tensor_split(workers.count), strict=True)
        loss = sum(workers.map(backward, parts))
        optimizer.step(1.0, math.sqrt(sum(workers.map(weights.collect, weights.shares))), workers)
        balance(weights.replicas, 0.0)
        return loss

    return step


def theirs(folder: Path, dtype: torch.dtype, experts: str, autocast: bool = False) -> Step:
    """Return the peer's step, with the fused AdamW that torch has."""
    model = transformers.DeepseekV3ForCausalLM.from_pretrained(folder, dtype=dtype).train()
    model.set_experts_implementation(experts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True)

    def step(ids: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def contenders(model: Transformer, folder: Path) -> dict[str, Step]:
    """Return all steps that are compared at one thread."""
    one = Workers(1)
    bf16, fp32 = torch.bfloat16, torch.float32
    return {
        "yatsude bf16": ours(model, bf16, one),
        "yatsude bf16, Muon": ours(model, bf16, one, muon=True),
        "yatsude fp32": ours(model, fp32, one),
        DEFAULT: theirs(folder, fp32, "grouped_mm"),
        "transformers bf16 autocast, eager": theirs(folder, fp32, "eager", autocast=True),
        "transformers bf16 autocast, grouped": theirs(folder, fp32, "grouped_mm", autocast=True),
        "transformers bf16 weights, eager": theirs(folder, bf16, "eager"),
        "transformers bf16 weights, grouped": theirs(folder, bf16, "grouped_mm"),
    }


def timed(steps: dict[str, Step], ids: Tensor, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Take turns; tokens per second of each step, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step(ids)
            if turn:  # the first round warms up
                rates[name].append(ids.numel() / (clock() - start))
    return rates


def losses_agree(steps: dict[str, Step], batches: list[Tensor]) -> bool:
    """Print the first losses of ours and the peer's fp32, and the largest difference."""
    mine, peers = ([steps[name](ids) for ids in batches] for name in ("yatsude bf16", DEFAULT))
    most = max(abs(a - b) for a, b in zip(mine, peers, strict=True))
    print(f"first losses   yatsude bf16 {_list(mine)}   transformers fp32 {_list(peers)}")
    print(f"               largest difference {most:.4f} (at most {MOST_DIFFERENCE})")
    return most <= MOST_DIFFERENCE


def machine() -> float:
    """Print where this runs; the ratio of its bf16 to its fp32 products comes back."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    speed = {dtype: product_speed(dtype) for dtype in (torch.bfloat16, torch.float32)}
    name = names[0] if names else platform.processor()
    print(f"machine        {name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"products       bf16 {speed[torch.bfloat16]:.0f} GFLOP/s, fp32 {speed[torch.float32]:.0f}, one thread")
    print(f"commit         {commit.stdout.strip()}, torch {torch.__version__}, transformers {transformers.__version__}")
    return speed[torch.bfloat16] / speed[torch.float32]


def product_speed(dtype: torch.dtype, size: int = 1024, repeats: int = 9) -> float:
    """GFLOP per second of CPU time of a square product, median."""
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        left @ right
        seconds.append(time.process_time() - start)
    return 2e-9 * size**3 / statistics.median(seconds[1:])


def main() -> int:
    """Measure and print; 1 if the losses differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    rounds = 3 if parser.parse_args().quick else 9
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    keep_freed_memory()
    bound = machine()
    model = Transformer(E8)
    initialise(model, 0)
    torch.nn.init.normal_(model.lm_head.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    print(f"model          {count(E8).total / 1e6:.1f} M parameters, batch {ROWS} x {LENGTH}")
    generator = torch.Generator().manual_seed(2)
    batches = [torch.randint(E8.vocab_size, (ROWS, LENGTH), generator=generator) for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        hf.write(model, Path(folder), torch.float32, 1 << 40)
        steps = contenders(model, Path(folder))
    agree = losses_agree(steps, batches)
    rates = timed(steps, batches[0], rounds, time.process_time)
    report(rates, bound)
    both_cores(model, steps, rates, batches[0], rounds)
    return 0 if agree else 1


def report(rates: dict[str, list[float]], bound: float) -> None:
    """Print the table of one thread and the ratios against the bars."""
    print(f"\n{'one thread':42} {'tokens per CPU second':>22} {'lowest':>8} {'highest':>8}")
    for name, each in rates.items():
        print(f"{name:42} {statistics.median(each):22,.0f} {min(each):8,.0f} {max(each):8,.0f}")
    for word, peer in (("its best", best(rates)), ("its default", DEFAULT)):
        ratio = statistics.median(a / b for a, b in zip(rates["yatsude bf16"], rates[peer], strict=True))
        verdict = "reached" if ratio >= BARS[word] else "missed"
        print(f"yatsude bf16 / {peer}: {ratio:.2f} (bar for {word}: {BARS[word]}, {verdict})")
    print(f"bf16 products are {bound:.2f} times as fast as fp32 here: about what the second ratio can be")


def best(rates: dict[str, list[float]]) -> str:
    """Name of the peer's fastest variant."""
    return max((name for name in rates if name.startswith("transformers")), key=lambda n: statistics.median(rates[n]))


def both_cores(
    model: Transformer, steps: dict[str, Step], rates: dict[str, list[float]], ids: Tensor, rounds: int
) -> None:
    """Print tokens per second of two threads: ours has two workers, the peer two threads inside each product."""
    torch.set_num_threads(2)
    pair = {"yatsude bf16, two workers": ours(model, torch.bfloat16, Workers(2)), best(rates): steps[best(rates)]}
    wall = timed(pair, ids, rounds, time.perf_counter)
    print(f"\n{'two threads':42} {'tokens per second':>22}   (load {os.getloadavg()[0]:.1f})")
    for name, each in wall.items():
        print(f"{name:42} {statistics.median(each):22,.0f}")


def _list(values: list[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
