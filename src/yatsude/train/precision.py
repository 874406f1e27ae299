"""Which precision the products run in: measured, not assumed."""

import time
from pathlib import Path

import torch

from yatsude.errors import MachineError, RecipeError
from yatsude.files import new_file

__all__ = ["choose", "refuse_without_float8", "settled"]

NOTE = "precision.txt"
ROWS, INNER, COLUMNS = 512, 512, 1024
SECONDS = 0.15
FLOAT8 = (8, 9)
"""Compute capability from which GPUs have such products."""


def choose(wish: str) -> tuple[torch.dtype, str]:
    """Precision for a recipe's word (`auto`, `bf16`, `fp32`), and the reason in words."""
    if wish == "fp8":
        raise RecipeError("precision = 'fp8' is for a job of ranks, see [parallel]; choose 'auto'")
    if wish != "auto":
        return (torch.bfloat16 if wish == "bf16" else torch.float32), f"{wish}, as the recipe says"
    speed = {dtype: _giga_flops(dtype) for dtype in (torch.bfloat16, torch.float32)}
    best = max(speed, key=lambda dtype: speed[dtype])
    name = "bf16" if best is torch.bfloat16 else "fp32"
    return best, (
        f"{name}: products run at {speed[torch.bfloat16]:.0f} GFLOP/s in bf16 and"
        f" {speed[torch.float32]:.0f} in fp32 on one core"
    )


def refuse_without_float8() -> None:
    """Refuse GPUs that have no products in FP8."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < FLOAT8:
        name = torch.cuda.get_device_name()
        raise MachineError(
            f"precision = 'fp8': {name} has no products in FP8, Ada and Hopper are the first; use 'bf16'"
        )


def settled(folder: Path, wish: str) -> tuple[torch.dtype, str]:
    """Precision of the run in `folder`: chosen once and noted there, so that a resumed run computes as it began."""
    if wish != "auto":
        return choose(wish)  # and no note: it would outlive a run that is then refused for its other settings
    note = folder / NOTE
    if note.is_file():
        kept = note.read_text(encoding="utf-8").strip()
        return (torch.bfloat16 if kept == "bf16" else torch.float32), f"{kept}, as this run began"
    dtype, reason = choose(wish)
    with new_file(note) as draft:
        draft.write_text("bf16\n" if dtype is torch.bfloat16 else "fp32\n", encoding="utf-8")
    return dtype, reason


def _giga_flops(dtype: torch.dtype) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        left, right = torch.randn(ROWS, INNER).to(dtype), torch.randn(INNER, COLUMNS).to(dtype)
        left @ right
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            left @ right
            count += 1
        return 2e-9 * ROWS * INNER * COLUMNS * count / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
