"""How a model passes through this process: in small pieces, some at the same time, memory that is used again."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from yatsude.machine import cores, keep_freed_memory
from yatsude.spec.stored import Shape

__all__ = ["MOST", "PIECE", "both", "in_pieces", "pieces", "together"]

PIECE = 8 << 20
"""Bytes of float32 that are worked on at once: little enough that memory is used again instead of asked for anew."""
ROWS = 128
"""Pieces begin at a multiple of this: at whole blocks of FP8."""
MOST = 2
"""Things done at the same time: each holds some pieces, and disk and memory serve no more."""
A = TypeVar("A")
B = TypeVar("B")


def pieces(shape: Shape) -> Iterator[tuple[int, int] | None]:
    """Ranges of rows of about `PIECE` bytes in float32; None is all of a small tensor."""
    size = 4 * math.prod(shape)
    if size <= PIECE or len(shape) < 2:
        yield None
        return
    step = max(1, PIECE // (size // shape[0]) // ROWS) * ROWS
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def both(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """Do two independent things at the same time, each with one torch thread."""
    with _pool() as pool:
        one, other = pool.submit(first), pool.submit(second)
        return one.result(), other.result()


def together(jobs: Sequence[Callable[[], A]]) -> list[A]:
    """Do independent jobs, some at the same time, each with one torch thread; the first error is raised."""
    with _pool() as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what has not begun would be done for nothing
            raise


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(MOST, cores()), "pieces", torch.set_num_threads, (1,))


@contextlib.contextmanager
def in_pieces() -> Iterator[None]:
    """Set the process up for it; a product is bound by memory here, and a second thread in it would mostly wait."""
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
