"""Which documents are set aside: whole clusters of near-twins, in each domain, by hash. The rest is trained on.

    clusters of a domain, by hash:   validation │ held out │ train …

Of each domain at least one cluster is trained on and another held out, so a domain of two has no validation, and a
domain of one has neither. Where no domain has three, validation is the held-out text itself.

A cluster that spans domains belongs to the domain of its first document. The choice depends on the seed and on the
texts, not on their order. A cluster's place comes from the smallest hash of its texts, hashed once more: without that,
large clusters would come first, and the texts set aside would be twins far more often than those trained on.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from yatsude.data.documents import Document
from yatsude.errors import DataError

__all__ = ["set_aside"]

Mask = npt.NDArray[np.bool_]


def set_aside(
    texts: Sequence[Document], clusters: npt.NDArray[np.int64], *, validation: float, held_out: float, seed: int
) -> tuple[Mask, Mask]:
    """Whether each document is for validation, and whether it is held out, each shape (documents,).

    `clusters` names the cluster of each; `validation` and `held_out` are shares of the characters of each domain.
    """
    keys: dict[int, bytes] = {}
    sizes: dict[int, int] = {}
    domains: dict[str, list[int]] = {}
    for document, cluster in zip(texts, clusters.tolist(), strict=True):
        if cluster not in sizes:
            domains.setdefault(document.domain, []).append(cluster)
        key = _hash(f"{seed} {document.text}".encode())
        keys[cluster] = min(keys.get(cluster, key), key)
        sizes[cluster] = sizes.get(cluster, 0) + len(document.text)
    first: set[int] = set()
    second: set[int] = set()
    for members in domains.values():
        order = sorted(members, key=lambda cluster: _hash(keys[cluster]))
        whole = sum(sizes[cluster] for cluster in order)
        chosen = _choose(order, sizes, validation * whole, leave=2)
        rest = [cluster for cluster in order if cluster not in chosen]
        first |= chosen
        second |= _choose(rest, sizes, held_out * whole, leave=1)
    if not second:
        raise DataError(
            f"nothing can be held out: all {len(texts)} documents are near-twins of each other; expected at least two"
            " different texts: add some"
        )
    return np.isin(clusters, sorted(first or second)), np.isin(clusters, sorted(second))


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _choose(members: Sequence[int], sizes: dict[int, int], share: float, leave: int) -> set[int]:
    """Clusters in the order given until the share is full; the smallest one where none fits; `leave` of them stay."""
    room = share
    chosen: set[int] = set()
    for cluster in members:
        if len(chosen) >= len(members) - leave:
            break
        if sizes[cluster] <= room:
            chosen.add(cluster)
            room -= sizes[cluster]
        elif room < share / 2:
            break  # filling the rest with whatever is small enough would take too many short texts
    if not chosen and len(members) > leave:
        chosen.add(min(members, key=sizes.__getitem__))
    return chosen
