"""What the machine at hand reaches at a model's own shapes: the rates that a plan is told.

Products are those of the plan (`plan/products.py`), of a few rows and with less of the largest weights, forward and
backward, as a step has them; a rate is their FLOPs over their time less that of their bytes, since the plan adds the
bytes again. Times are medians.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from yatsude.model.attention import attend
from yatsude.model.experts import grouped_product
from yatsude.plan.job import Job
from yatsude.plan.products import Product, products
from yatsude.spec.config import ModelConfig
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings

__all__ = ["Clock", "calibrate", "median_seconds", "wall"]

Clock = Callable[[], float]

SEQUENCE, ROWS = 512, 1024
"""Tokens of the attention that is timed, and of a product at most."""
FLOPS = 2.0**32
"""Of one timed product at most: a few hundredths of a second on a core, enough to keep a GPU busy."""
WEIGHTS = 2**27
"""Numbers of a timed product's weights at most: of more experts some are enough."""
NUMBERS = 2**23
"""That a pass over memory reads, and writes."""
COLUMNS = 64
"""Of a weight are timed in multiples of this."""
PASSES = 3
"""Products of a product's forward and backward."""
OPERATIONS = 1000
"""Small ones, whose time is that of starting them."""
WIDTH = 2
"""Bytes of a number, as the plan counts: in float32 the bandwidth comes out as that of so many numbers."""


def calibrate(
    config: ModelConfig,
    dtype: torch.dtype = torch.bfloat16,
    *,
    clock: Clock = time.process_time,
    rounds: int = 7,
    device: str = "cpu",
) -> dict[str, float]:
    """Rates of one thread, or of a GPU: those of `plan.rates.Rates` that need no other process.

    `clock` is CPU time, or `wall` where others work beside it (as they will in training) or the device is a GPU.
    """
    make = _maker(dtype, device)
    field, one = make(NUMBERS), make(8)
    twice = torch.empty_like(field)

    def time_of(run: Callable[[], object]) -> float:
        return median_seconds(run, clock, rounds)

    bandwidth = 2 * WIDTH * NUMBERS / time_of(lambda: torch.mul(field, 2, out=twice))
    shapes = _shapes(config)
    timed = [(shape, time_of(_product(shape, make))) for shape in shapes]
    matrix = _rate([pair for pair in timed if pair[0].groups == 1], bandwidth)
    return {
        "matrix": matrix,
        "plain": matrix,
        "grouped": _rate([pair for pair in timed if pair[0].groups > 1], bandwidth) or matrix,
        "attention": _attention(config, make, time_of),
        "bandwidth": bandwidth,
        "launch": time_of(lambda: [one.add(1) for _ in range(OPERATIONS)]) / OPERATIONS,
    }


def wall() -> float:
    """Seconds by the clock on the wall, when a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def median_seconds(run: Callable[[], object], clock: Clock = time.process_time, rounds: int = 7) -> float:
    """Median time of a call, after one for nothing."""
    run()
    times = []
    for _ in range(rounds):
        start = clock()
        run()
        times.append(clock() - start)
    return max(statistics.median(times), 1e-9)


def _maker(dtype: torch.dtype, device: str) -> Callable[..., Tensor]:
    """Numbers from a generator of its own: measuring changes no run."""
    generator = torch.Generator(device).manual_seed(0)

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    return make


def _shapes(config: ModelConfig) -> list[Product]:
    """Products of a layer of each kind, each once, made small enough to be timed."""
    job = Job(config=config, accelerator=accelerator("cpu"), gpus=1, sequence=ROWS, batch=1, imbalance=1.0)
    kinds: list[Any] = ["dense"] if config.first_k_dense_replace else []
    kinds += ["mixture"] if config.has_experts else []
    found = {shape for kind in kinds for shape in products(job, ParallelSettings(micro_batches=1), kind) if shape.eight}
    return sorted({_small(shape) for shape in found}, key=dataclasses.astuple)


def _small(shape: Product) -> Product:
    """As many rows an expert as before, but fewer experts, and of a large weight a part of its columns."""
    groups = max(min(shape.groups, int(WEIGHTS / (shape.inner * shape.outer))), 2 if shape.groups > 1 else 1)
    rows = max(int(shape.rows / shape.groups), 1) * groups
    columns = int(FLOPS / (2 * rows * shape.inner)) // COLUMNS * COLUMNS
    return dataclasses.replace(shape, rows=rows, groups=groups, outer=min(shape.outer, max(columns, COLUMNS)))


def _product(shape: Product, make: Callable[..., Tensor]) -> Callable[[], object]:
    """A product and the gradients of both its sides."""
    rows, inner, outer = int(shape.rows), int(shape.inner), int(shape.outer)
    x_RI, back_RO = make(rows, inner).requires_grad_(), make(rows, outer)
    if shape.groups == 1:
        weight = make(outer, inner).requires_grad_()
        return lambda: torch.autograd.grad(functional.linear(x_RI, weight), (x_RI, weight), back_RO)
    weight = make(shape.groups, outer, inner).requires_grad_()
    counts_E = torch.full((shape.groups,), rows // shape.groups, device=x_RI.device)
    return lambda: torch.autograd.grad(grouped_product(x_RI, weight, counts_E), (x_RI, weight), back_RO)


def _rate(timed: list[tuple[Product, float]], bandwidth: float) -> float:
    """FLOP/s of some products; 0 without any. Bytes count for half of the time at most: small ones stay in a cache."""
    if not timed:
        return 0.0
    seconds = sum(took for _, took in timed) / PASSES
    moving = sum(shape.bytes(WIDTH) for shape, _ in timed) / bandwidth
    return sum(shape.flops for shape, _ in timed) / max(seconds - moving, seconds / 2)


def _attention(
    config: ModelConfig, make: Callable[..., Tensor], time_of: Callable[[Callable[[], object]], float]
) -> float:
    heads, key, value = config.num_attention_heads, config.qk_head_dim, config.value_dim
    flops = 2 * heads * (key + value) * SEQUENCE * (SEQUENCE + 1) / 2
    several = max(int(min(4, FLOPS / flops)), 1)
    parts = [make(several, heads, SEQUENCE, width) for width in (key, key, value)]
    return several * flops / time_of(lambda: attend(parts[0], parts[1], parts[2], None, key**-0.5))
