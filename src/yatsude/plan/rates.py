"""What a program reaches of an accelerator's peaks: stated shares, or figures measured on the machine at hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from yatsude.errors import RecipeError, nearest
from yatsude.spec.hardware import Accelerator

__all__ = ["EFFICIENCY", "NOTES", "Efficiency", "Rates", "calibrated", "rates"]

NOTES = ("machine", "date", "preset", "precision", "processes", "threads")
"""What a calibration says beside its rates: for people, not for the plan."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Shares of the peaks that good kernels reach on large shapes; one set for all accelerators and models.

    A small product falls below by itself: to the time of its FLOPs that of its bytes is added.
    """

    matrix: float = 0.70
    """Dense products in bf16; public benchmarks of cuBLAS on Hopper lie at 0.65 to 0.75."""
    matrix_fp8: float = 0.60
    """In FP8 with scales by block."""
    grouped: float = 0.55
    """Products of many experts in one call, bf16."""
    grouped_fp8: float = 0.45
    attention: float = 0.50
    """Of the bf16 peak, forward and backward together; FlashAttention-3 (arXiv 2407.08608) reaches 0.75 and 0.55."""
    bandwidth: float = 0.75
    link: float = 0.65
    network: float = 0.75
    latency: float = 25e-6
    """Seconds that a collective takes beside its bytes."""
    launch: float = 10e-6
    """Seconds of the host for one kernel: small micro-batches wait for it."""


EFFICIENCY = Efficiency()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """What is reached: FLOP/s, bytes/s, seconds."""

    matrix: float
    grouped: float
    attention: float
    bandwidth: float
    link: float
    network: float
    host: float
    latency: float
    launch: float
    plain: float
    """FLOP/s of products that stay in bf16 whatever the rest does: the head."""


def rates(accelerator: Accelerator, precision: str = "bf16", efficiency: Efficiency = EFFICIENCY) -> Rates:
    """Rates of an accelerator whose large products run in `precision` ("bf16" or "fp8")."""
    if precision == "fp8" and not accelerator.fp8:
        raise RecipeError(f"precision = 'fp8': {accelerator.name} has no FP8 products; use bf16")
    eight = precision == "fp8"
    return Rates(
        matrix=accelerator.fp8 * efficiency.matrix_fp8 if eight else accelerator.bf16 * efficiency.matrix,
        grouped=accelerator.fp8 * efficiency.grouped_fp8 if eight else accelerator.bf16 * efficiency.grouped,
        attention=accelerator.bf16 * efficiency.attention,
        bandwidth=accelerator.bandwidth * efficiency.bandwidth,
        link=accelerator.link * efficiency.link,
        network=accelerator.network * efficiency.network,
        host=accelerator.host * efficiency.link,
        latency=efficiency.latency,
        launch=efficiency.launch,
        plain=accelerator.bf16 * efficiency.matrix,
    )


def calibrated(stated: Rates, path: Path) -> Rates:
    """Lay measured figures over stated ones: a JSON object with some of the names of `Rates`, in the same units.

    `yatsude plan calibrate` writes one, with `NOTES` beside them.

    >>> Path("rates.json").write_text('{"matrix": 5.2e10, "bandwidth": 1.1e10}')  # doctest: +SKIP
    """
    try:
        figures: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(
            f"no calibration at {path}; 'yatsude plan calibrate --out {path}' writes one, or leave --calibration out"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(figures, dict):
        raise RecipeError(f'{path}: expected an object such as {{"matrix": 5e10}}, found {figures!r:.40}')
    known = [field.name for field in dataclasses.fields(Rates)]
    figures = {name: value for name, value in figures.items() if name not in NOTES}
    for name, value in figures.items():
        if name not in known:
            raise RecipeError(f"{path}: unknown figure '{name}'{nearest(name, known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise RecipeError(f"{path}: {name} = {value!r}: expected a number above 0")
    return dataclasses.replace(stated, **{name: float(value) for name, value in figures.items()})
