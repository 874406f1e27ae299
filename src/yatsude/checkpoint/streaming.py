"""How a model passes through this process: in small pieces, some at the same time, memory that is used again."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from yatsude.machine import cores, keep_freed_memory

__all__ = ["both", "in_pieces", "together"]

MOST = 2
"""Things done at the same time: each holds some pieces, and disk and memory serve no more."""
A = TypeVar("A")
B = TypeVar("B")


def both(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """Do two independent things at the same time, each with one torch thread."""
    with _pool() as pool:
        one, other = pool.submit(first), pool.submit(second)
        return one.result(), other.result()


def together(jobs: Sequence[Callable[[], A]]) -> list[A]:
    """Do independent jobs, some at the same time, each with one torch thread; the first error is raised."""
    with _pool() as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


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
