"""Which sample comes when: one global counter decides, so that a resumed job on any number of ranks sees the same.

Sample number n of the job belongs to epoch n // size; inside an epoch a keyed permutation gives its place on disk,
in O(1) and without a table.
"""

import dataclasses
import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt

from yatsude.errors import DataError
from yatsude.shards import Shards

__all__ = ["Batch", "Feed", "Source", "permute", "place"]

ROUNDS = 4
Tokens = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of packed documents, all of shape (B, T): inputs, their targets, and the number of each token's document."""

    inputs: Tokens
    targets: Tokens
    documents: Tokens


class Source(Protocol):
    """Where a run's samples come from, by their number in the job."""

    def batch(self, first: int, count: int) -> Batch:
        """Samples number `first` to `first + count - 1` of the job."""
        ...


class Feed:
    """Samples of `length` tokens from shards, shuffled anew every epoch."""

    def __init__(self, shards: Shards, length: int, seed: int) -> None:
        self.shards, self.length, self.seed = shards, length, seed
        self.size = shards.samples(length)
        if not self.size:
            raise DataError(
                f"{shards.folder} has {shards.tokens} tokens, too few for one sample of {length};"
                " add text or lower train.sequence_length"
            )

    def batch(self, first: int, count: int) -> Batch:
        """Samples number `first` to `first + count - 1` of the job."""
        places = (place(n, self.size, self.seed) for n in range(first, first + count))
        tokens = np.stack([self.shards.sample(n, self.length) for n in places])
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        return Batch(inputs, targets, (inputs == self.shards.separator).cumsum(1))


def place(number: int, size: int, seed: int) -> int:
    """Where sample `number` of the job is among `size` samples that are shuffled anew every epoch."""
    epoch, index = divmod(number, size)
    return permute(index, size, f"{seed}:{epoch}")


def permute(index: int, size: int, key: str) -> int:
    """Place of `index` in a pseudo-random permutation of range(size): a Feistel network, walked until it fits.

    >>> sorted(permute(i, 5, "key") for i in range(5))
    [0, 1, 2, 3, 4]
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(ROUNDS):
            digest = hashlib.blake2b(f"{key}:{turn}:{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        index = (left << half) | right
        if index < size:
            return index
