"""Threads that each run a replica of the model on a share of the sequences.

Torch releases the interpreter's lock inside its operations, so that two threads with one core each keep both cores
busy, without the waiting at every small product that two cores on one product cost.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

import torch

__all__ = ["Workers"]

A = TypeVar("A")
R = TypeVar("R")


class Workers:
    """A fixed number of threads, one torch thread each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "worker", initializer=torch.set_num_threads, initargs=(1,))

    def map(self, function: Callable[[A], R], items: Iterable[A]) -> list[R]:
        """Apply `function` to all items at once; results in order, the first error is raised."""
        return list(self._pool.map(function, items))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)
