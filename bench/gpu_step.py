"""A training step of a mixture with about 1 B active parameters on one GPU: speed, memory, and where the time goes.

    python bench/gpu_step.py [--rows 8] [--length 4096] [--steps 12]

bf16 weights and products, AdamW. Prints tokens per second, model FLOPs utilisation (training_flops of spec/counts.py
over the measured speed of a large bf16 product, and over what the vendor states), peak memory, and the kernels that
take most; with and without torch.compile. Exit code 2 without a GPU.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from yatsude.model.init import initialise
from yatsude.model.loss import cross_entropy
from yatsude.model.transformer import Transformer
from yatsude.spec.config import ModelConfig
from yatsude.spec.counts import count, training_flops
from yatsude.train.balance import balance

STATED = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s by the vendors' data sheets."""
CONFIG = ModelConfig(
    vocab_size=65536,
    hidden_size=2048,
    num_hidden_layers=16,
    intermediate_size=8192,
    moe_intermediate_size=1024,
    num_attention_heads=16,
    kv_lora_rank=512,
    q_lora_rank=768,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    n_routed_experts=32,
    num_experts_per_tok=4,
    n_shared_experts=1,
    first_k_dense_replace=1,
    max_position_embeddings=4096,
)


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return 2
    name = torch.cuda.get_device_name()
    commit = subprocess.check_output(["git", "describe", "--always", "--dirty"], text=True, cwd=Path(__file__).parent)
    peak = product_speed()
    stated = next((speed for word, speed in STATED.items() if word in name), peak)
    counts = count(CONFIG)
    print(f"{name}, torch {torch.__version__}, commit {commit.strip()}")
    print(
        f"{counts.total / 1e9:.2f} B parameters, {counts.active / 1e9:.2f} B active; {options.rows} x {options.length}"
    )
    print(f"bf16 products {peak / 1e12:.0f} TFLOP/s measured, {stated / 1e12:.0f} stated")
    for compiled in (False, True):
        try:
            measure(options, compiled, peak, stated)
        except Exception as error:  # whatever a compiler says belongs into the table, not over it
            print(f"{'torch.compile' if compiled else 'eager'}: {type(error).__name__}: {str(error)[:300]}")
    return 0


def measure(options: argparse.Namespace, compiled: bool, peak: float, stated: float) -> None:
    """Run some steps and print their figures."""
    model = Transformer(CONFIG)
    initialise(model, 0)
    model = model.to("cuda", torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    for router in model.routers:
        router.e_score_correction_bias = torch.zeros(CONFIG.n_routed_experts, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    forward = torch.compile(model) if compiled else model
    tokens = torch.randint(CONFIG.vocab_size, (options.rows, options.length + 1), device="cuda")

    def step() -> Tensor:
        hidden = forward(tokens[:, :-1])
        scale = 1 / tokens[:, 1:].numel()
        loss = cross_entropy(hidden.flatten(0, 1), model.lm_head.weight, tokens[:, 1:].flatten(), scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        balance([model], 1e-3)
        return loss

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    seconds = []
    for _ in range(options.steps):
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    rate = options.rows * options.length / statistics.median(seconds)
    flops = rate * training_flops(CONFIG, options.length)
    print(
        f"{'torch.compile' if compiled else 'eager':14} {rate:10,.0f} tokens/s, {flops / 1e12:.0f} TFLOP/s:"
        f" {flops / peak:.1%} of the measured product, {flops / stated:.1%} of the stated;"
        f" peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    )
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    print(profile.key_averages().table(sort_by="cuda_time_total", row_limit=12, max_name_column_width=60))


def product_speed(size: int = 8192, repeats: int = 20) -> float:
    """FLOP per second of a square bf16 product."""
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        left @ right
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
