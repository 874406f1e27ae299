"""Near-twins: texts that share most of their character 3-grams, found exactly and gathered into clusters.

Two sets with a Jaccard similarity of at least s have a member in common among the first  |set| - ceil(s·|set|) + 1  of
each, in any order that is the same for all sets (Chaudhuri et al. 2006; Bayardo et al. 2007). With the rarest 3-grams
first, few texts meet there; those that do are compared. Nothing is sampled: a pair is missed only where more than
NEIGHBOURS texts of like size share one rare 3-gram.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["NGRAM", "clusters"]

NGRAM = 3
NEIGHBOURS = 1000
BATCH_PAIRS = 1 << 21
BATCH_WORK = 1 << 22
LARGE = 256
"""Sets from this size on are compared one by one, smaller ones many at a time."""
ROUNDING = 1e-9

Ints = npt.NDArray[np.int64]


def clusters(texts: Sequence[str], similarity: float) -> Ints:
    """Cluster of each text, shape (len(texts),): the smallest index of any text that it is tied to, maybe by others.

    `similarity` is the Jaccard similarity of the sets of 3-grams from which on two texts are tied, above 0 to 1. A text
    of one or two characters is one 3-gram of its own.
    """
    labels = np.arange(len(texts))
    if len(texts) < 2:
        return labels
    sets = _Sets(texts)
    for left, right in _batches(sets, similarity):
        apart = labels[left] != labels[right]
        left, right = left[apart], right[apart]  # noqa: PLW2901
        shared = sets.shared(left, right)
        tied = shared >= similarity * (sets.size[left] + sets.size[right] - shared) - ROUNDING
        labels = _join(labels, left[tied], right[tied])
    return labels


class _Sets:
    """The 3-grams of every text as numbers, the rarest first: `members[start[i] : start[i] + size[i]]` for text i."""

    def __init__(self, texts: Sequence[str]) -> None:
        owner, gram = _grams(texts)
        order = np.argsort(gram, kind="stable")
        fresh = np.append(True, gram[order][1:] != gram[order][:-1])
        name = np.empty(len(gram), np.int64)
        name[order] = np.cumsum(fresh) - 1
        by_rarity = np.argsort(np.bincount(name), kind="stable")
        rank = np.empty(len(by_rarity), np.int64)
        rank[by_rarity] = np.arange(len(by_rarity))
        self.kinds = len(rank)
        key = np.sort(owner * self.kinds + rank[name])
        key = key[np.append(True, key[1:] != key[:-1])]
        self.owner, self.members = key // self.kinds, key % self.kinds
        self.size = np.bincount(self.owner, minlength=len(texts))
        self.start = np.cumsum(self.size) - self.size

    def shared(self, left: Ints, right: Ints) -> Ints:
        """How many members each pair of texts shares, shape (pairs,)."""
        result = np.zeros(len(left), np.int64)
        large = self.size[left] >= LARGE
        few = np.flatnonzero(large)
        result[few] = self._one_by_one(left[few], right[few])
        many = np.flatnonzero(~large)
        for part in np.array_split(many, self.size[left[many]].sum() // BATCH_WORK + 1):
            result[part] = self._together(left[part], right[part])
        return result

    def _together(self, left: Ints, right: Ints) -> Ints:
        if not len(left):
            return left
        wanted, offered = self._numbered(left), self._numbered(right)
        place = np.minimum(np.searchsorted(offered, wanted), len(offered) - 1)
        return np.bincount((wanted // self.kinds)[offered[place] == wanted], minlength=len(left))

    def _numbered(self, texts: Ints) -> Ints:
        """Members of all these sets in a row, raised by (their place in `texts`) · kinds."""
        size = self.size[texts]
        place = np.repeat(np.arange(len(texts)), size)
        inside = np.arange(len(place)) - np.repeat(np.cumsum(size) - size, size)
        return place * self.kinds + self.members[self.start[texts][place] + inside]

    def _one_by_one(self, left: Ints, right: Ints) -> Ints:
        result = np.zeros(len(left), np.int64)
        marked, current = np.zeros(self.kinds, np.bool_), -1
        for pair in np.argsort(left, kind="stable"):
            if left[pair] != current:
                marked[:] = False
                current = left[pair]
                marked[self._of(current)] = True
            result[pair] = np.count_nonzero(marked[self._of(right[pair])])
        return result

    def _of(self, text: int) -> Ints:
        return self.members[self.start[text] : self.start[text] + self.size[text]]


def _grams(texts: Sequence[str]) -> tuple[Ints, Ints]:
    """Owner and number (three code points of 21 bits) of every 3-gram, each of shape (3-grams,)."""
    points = np.frombuffer(("\0\0".join(texts) + "\0\0").encode("utf-32-le"), "<u4").astype(np.int64)
    windows = points[:-2] << 42 | points[1:-1] << 21 | points[2:]
    length = np.array([len(text) for text in texts])
    count = np.maximum(length - NGRAM + 1, 1)
    owner = np.repeat(np.arange(len(texts)), count)
    text_start = np.cumsum(length + 2) - (length + 2)
    inside = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, windows[text_start[owner] + inside]


def _batches(sets: _Sets, similarity: float) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of texts that may be tied, each once in a batch: (left, right), the left one's set is not the larger."""
    texts = len(sets.size)
    waiting: list[Ints] = []
    for pairs in _meetings(sets, similarity):
        waiting.append(pairs)
        if sum(map(len, waiting)) > BATCH_PAIRS:
            yield _unique(waiting, texts)
            waiting = []
    if waiting:
        yield _unique(waiting, texts)


def _unique(waiting: list[Ints], texts: int) -> tuple[Ints, Ints]:
    pairs = np.sort(np.concatenate(waiting))
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])] if len(pairs) else pairs
    return pairs // texts, pairs % texts


def _meetings(sets: _Sets, similarity: float) -> Iterator[Ints]:
    """Pairs that meet in a rare 3-gram, as left · texts + right, one array for each distance within its list."""
    place = np.arange(len(sets.members)) - sets.start[sets.owner]
    needed = np.ceil(similarity * sets.size - ROUNDING).astype(np.int64)
    rare = np.flatnonzero(place < (sets.size - needed + 1)[sets.owner])
    rare = rare[np.lexsort((sets.size[sets.owner[rare]], sets.members[rare]))]
    gram, text, place = sets.members[rare], sets.owner[rare], place[rare]
    left_over = sets.size[text] - place  # members from here on: no more can be shared
    first = np.arange(len(rare))
    for distance in range(1, NEIGHBOURS + 1):
        first = first[first + distance < len(rare)]
        second = first + distance
        # sizes grow along a list: once the second is too large, all that follow are
        fits = (gram[first] == gram[second]) & (
            sets.size[text[first]] >= similarity * sets.size[text[second]] - ROUNDING
        )
        first, second = first[fits], second[fits]
        if not len(first):
            return
        most = np.minimum(left_over[first], left_over[second])
        both = sets.size[text[first]] + sets.size[text[second]]
        likely = most >= similarity / (1 + similarity) * both - ROUNDING
        yield text[first[likely]] * len(sets.size) + text[second[likely]]


def _join(labels: Ints, left: Ints, right: Ints) -> Ints:
    """Labels after tying each pair: of two clusters the one with the larger label takes the smaller one."""
    while True:
        one, other = labels[left], labels[right]
        if np.array_equal(one, other):
            return labels
        hung = labels.copy()
        np.minimum.at(hung, np.maximum(one, other), np.minimum(one, other))  # only a cluster's root is hung on
        while not np.array_equal(labels := hung[hung], hung):
            hung = labels
