"""Accelerators in numbers, from their makers' data sheets: peaks, which no program reaches. No torch.

What a program reaches of them is stated in `plan/rates.py`, or measured there. Sources, one a line:

    a100-40, a100-80   NVIDIA A100 Tensor Core GPU data sheet (SXM); HGX network 200 Gb/s a GPU
    h100, h200         NVIDIA H100 and H200 data sheets (SXM), rates without sparsity; DGX network 400 Gb/s a GPU
    h800               as h100 with 400 GB/s of NVLink (DeepSeek-V3, arXiv 2412.19437, section 3.1)
    b200               NVIDIA DGX B200 data sheet, an eighth of the machine
    gb200, gb300       NVIDIA GB200 and GB300 NVL72 data sheets, one of 72; network of ConnectX-7 and -8
    l40s               NVIDIA L40S data sheet; PCIe 4 x16 between the cards
    cpu                no data sheet: one thread of a usual server core, to be replaced by a calibration

`memory` is what a driver leaves to programs, rounded down.
"""

import dataclasses
from types import MappingProxyType

from yatsude.errors import RecipeError, nearest

__all__ = ["ACCELERATORS", "Accelerator", "accelerator", "named"]

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One accelerator and its links; rates are peaks a second, links in one direction."""

    name: str
    bf16: float
    """FLOP/s of matrix products, dense."""
    fp8: float
    """The same in eight bits; 0: it has no such products."""
    memory: int
    """Bytes."""
    bandwidth: float
    """Bytes/s of memory."""
    node: int
    """Accelerators that the fast link joins."""
    link: float
    """Bytes/s of the fast link, each accelerator."""
    network: float
    """Bytes/s between nodes, each accelerator."""
    host: float
    """Bytes/s to the memory of the CPU, each accelerator."""
    host_memory: int
    """Bytes of the CPU's memory, each accelerator: machines differ, this is an assumption."""
    watts: float
    """Of the board at full load, without its share of the machine."""


def _table() -> dict[str, Accelerator]:
    # name: TFLOP/s bf16, fp8; GiB; memory TB/s; node; link, network, host GB/s; host GiB; watts
    rows = {
        "a100-40": (312, 0, 39, 1.555, 8, 300, 25, 25, 120, 400),
        "a100-80": (312, 0, 79, 2.039, 8, 300, 25, 25, 120, 400),
        "h100": (989, 1979, 79, 3.35, 8, 450, 50, 50, 240, 700),
        "h800": (989, 1979, 79, 3.35, 8, 200, 50, 50, 240, 700),
        "h200": (989, 1979, 139, 4.8, 8, 450, 50, 50, 240, 700),
        "b200": (2250, 4500, 178, 8.0, 8, 900, 50, 50, 240, 1000),
        "gb200": (2500, 5000, 184, 8.0, 72, 900, 50, 200, 230, 1200),
        "gb300": (2500, 5000, 277, 8.0, 72, 900, 100, 200, 230, 1400),
        "l40s": (362, 733, 44, 0.864, 8, 32, 25, 25, 120, 350),
        "cpu": (0.05, 0, 8, 0.01, 8, 5, 1, 10, 8, 15),
    }
    return {
        name: Accelerator(
            name=name,
            bf16=bf16 * 1e12,
            fp8=fp8 * 1e12,
            memory=memory * GIB,
            bandwidth=bandwidth * 1e12,
            node=node,
            link=link * 1e9,
            network=network * 1e9,
            host=host * 1e9,
            host_memory=spare * GIB,
            watts=watts,
        )
        for name, (bf16, fp8, memory, bandwidth, node, link, network, host, spare, watts) in rows.items()
    }


ACCELERATORS = MappingProxyType(_table())
"""Name -> accelerator."""


def accelerator(name: str) -> Accelerator:
    """Look an accelerator up by name, whatever its case.

    >>> accelerator("H100").node
    8
    """
    if name.lower() not in ACCELERATORS:
        raise RecipeError(f"unknown accelerator '{name}'{nearest(name.lower(), ACCELERATORS)}")
    return ACCELERATORS[name.lower()]


def named(device: str) -> Accelerator:
    """Row of the table for a device by the name that its driver gives; what is not in the table counts as a CPU.

    >>> named("NVIDIA H100 80GB HBM3").name, named("NVIDIA A100-SXM4-80GB").name, named("AMD EPYC").name
    ('h100', 'a100-80', 'cpu')
    """
    word = device.lower()
    fits = [row for name, row in ACCELERATORS.items() if all(part in word for part in name.split("-"))]
    return max(fits, key=lambda row: len(row.name), default=ACCELERATORS["cpu"])
