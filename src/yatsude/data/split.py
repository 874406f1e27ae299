"""Which documents are held out: whole clusters of near-twins, in each domain, by hash.

A cluster that spans domains belongs to the domain of its first document. The choice depends on the seed and on the
texts, not on their order.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from yatsude.data.documents import Document
from yatsude.errors import DataError

__all__ = ["held_out"]


def held_out(
    texts: Sequence[Document], clusters: npt.NDArray[np.int64], fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Whether each document is held out, shape (documents,); `clusters` names the cluster of each.

    Of each domain about `fraction` of the characters is taken, and at least one cluster where there are two.
    """
    keys: dict[int, bytes] = {}
    sizes: dict[int, int] = {}
    domains: dict[str, list[int]] = {}
    for document, cluster in zip(texts, clusters.tolist(), strict=True):
        if cluster not in sizes:
            domains.setdefault(document.domain, []).append(cluster)
        key = hashlib.blake2b(f"{seed} {document.text}".encode(), digest_size=8).digest()
        keys[cluster] = min(keys.get(cluster, key), key)
        sizes[cluster] = sizes.get(cluster, 0) + len(document.text)
    chosen: set[int] = set()
    for members in domains.values():
        chosen |= _choose(sorted(members, key=keys.__getitem__), sizes, fraction)
    if not chosen:
        raise DataError(
            f"nothing can be held out: all {len(texts)} documents are near-twins of each other; expected at least two"
            " different texts: add some"
        )
    return np.isin(clusters, sorted(chosen))


def _choose(members: Sequence[int], sizes: dict[int, int], fraction: float) -> set[int]:
    """Clusters in the order given until the share is full; the smallest one where none fits."""
    share = fraction * sum(sizes[cluster] for cluster in members)
    room = share
    chosen: set[int] = set()
    for cluster in members:
        if sizes[cluster] <= room:
            chosen.add(cluster)
            room -= sizes[cluster]
        elif room < share / 2:
            break  # filling the rest with whatever is small enough would hold out too many short texts
    if not chosen and len(members) > 1:
        chosen.add(min(members, key=sizes.__getitem__))
    return chosen
