"""What a step takes, counted where PyTorch carries it out: memory of tensors, arithmetic, what ranks exchange.

It sees real tensors and fake ones alike, so that a dry run can be held against a run.
"""

import dataclasses
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Counts", "Tracker"]

PRODUCTS = {
    "mm": 0,
    "bmm": 0,
    "_grouped_mm": 0,
    "_scaled_mm": 0,
    "addmm": 1,
    "addmm_": 1,
    "baddbmm": 1,
    "baddbmm_": 1,
    "mv": 0,
}
"""Products of matrices, and where their first factor stands among the arguments."""
EXCHANGES = {
    "all_gather_into_tensor": ("all-gather", "out"),
    "_allgather_base_": ("all-gather", 0),
    "reduce_scatter_tensor": ("reduce-scatter", 0),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    "all_to_all_single": ("all-to-all", 0),
    "alltoall_base_": ("all-to-all", 1),
    "all_reduce": ("all-reduce", 0),
    "allreduce_": ("all-reduce", 0),
    "send": ("send", 0),
}
"""Collectives, and which tensor is the whole buffer: the result of a gather, the input of all others."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of a stretch of work."""

    peak: int
    """Bytes of tensors, at the most at the same time."""
    steady: int
    """Bytes of tensors, at its end."""
    flops: int
    exchanged: dict[str, tuple[int, int]]
    """Kind of collective -> calls and bytes of their whole buffers."""


class Tracker(TorchDispatchMode):
    """Counts while it is entered; `lap` tells of what came since the lap before."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._now = self._peak = self._flops = 0
        self._calls: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def lap(self) -> Counts:
        """What was counted; counting begins anew, with what is alive."""
        exchanged = {kind: (calls, self._bytes[kind]) for kind, calls in sorted(self._calls.items())}
        found = Counts(self._peak, self._now, self._flops, exchanged)
        self._peak, self._flops = self._now, 0
        self._calls.clear()
        self._bytes.clear()
        return found

    def count(self, flops: int) -> None:
        """Take arithmetic into account that is done out of sight."""
        self._flops += flops

    def perform(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Carry an operator out."""
        return func(*args, **kwargs)

    def __enter__(self) -> Self:
        resize, tracker = torch.UntypedStorage.resize_, self

        def followed(storage: torch.UntypedStorage, size: int) -> Any:
            resize(storage, size)
            tracker._see(storage)

        self._patch = mock.patch.object(torch.UntypedStorage, "resize_", followed)
        self._patch.start()  # FSDP frees what it has gathered so, past all operators
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patch.stop()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # comes again as what it does on this rank
        out = self.perform(func, args, kwargs or {})
        for tensor in _tensors(out):
            self._see(tensor.untyped_storage())
        name = func._overloadpacket.__name__
        if name in PRODUCTS:
            left, right = args[PRODUCTS[name] : PRODUCTS[name] + 2]
            self.count(2 * left.numel() * (right.shape[-1] if right.ndim > 1 else 1))
        elif name in EXCHANGES:
            kind, place = EXCHANGES[name]
            self._calls[kind] += 1
            self._bytes[kind] += sum(tensor.nbytes for tensor in _tensors(out if place == "out" else args[place]))
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        """Take note of a storage and its size; it is forgotten when it is freed."""
        key, size = storage._cdata, storage.nbytes()
        before = self._live.get(key)
        reference = before[0] if before else weakref.ref(storage, lambda _: self._forget(key))
        self._live[key] = (reference, size)
        self._now += size - (before[1] if before else 0)
        self._peak = max(self._peak, self._now)

    def _forget(self, key: int) -> None:
        self._now -= self._live.pop(key)[1]


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and not isinstance(leaf, DTensor))
