"""Counting character n-grams of a whole corpus with sorts: numpy only, a few seconds for ten million characters.

Every text becomes  BEGIN a b c END,  and all texts together one stream of symbol numbers. A k-gram is named by its rank
among all distinct k-grams, so that one number (rank of its first k - 1 symbols, last symbol) packs it whole:

    code = rank of the (k-1)-gram that ends one place before · symbols + last symbol

Sorted codes keep all continuations of one context together, and looking a gram up is one binary search an order.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BEGIN", "END", "FIRST", "UNKNOWN", "Alphabet", "Grams", "Stream", "count"]

BEGIN, END, UNKNOWN, FIRST = range(4)
"""Numbers of the marks; the characters of the alphabet follow from FIRST on."""

Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Stream:
    """All texts as one row of symbols, and for each symbol how many of its text stand before it (0: BEGIN)."""

    symbols: Ints
    depth: Counts


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """The characters of the training text, as sorted code points."""

    points: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Alphabet":
        """Collect every character that occurs."""
        return cls(np.unique(_points(texts)))

    @property
    def size(self) -> int:
        """Number of symbols, the three marks included."""
        return FIRST + len(self.points)

    def stream(self, texts: Sequence[str]) -> Stream:
        """Number the symbols of texts, marks included; characters outside the alphabet are UNKNOWN."""
        lengths = np.array([len(text) + 2 for text in texts], np.int64)
        ends = np.cumsum(lengths)
        symbols = np.full(int(lengths.sum()), UNKNOWN, np.int64)
        inside = np.ones(len(symbols), bool)
        inside[ends - lengths] = inside[ends - 1] = False
        symbols[inside] = self._number(_points(texts))
        symbols[ends - lengths], symbols[ends - 1] = BEGIN, END
        depth = np.arange(len(symbols)) - np.repeat(ends - lengths, lengths)
        return Stream(symbols, depth.astype(np.int32))

    def _number(self, points: npt.NDArray[np.uint32]) -> Ints:
        place, known = _search(self.points, points)
        return np.where(known, FIRST + place, UNKNOWN)


@dataclasses.dataclass(frozen=True)
class Grams:
    """The distinct k-grams of one order, sorted by code; G of them."""

    codes: Ints
    """(G,): context rank · symbols + last symbol."""
    seen: Counts
    """(G,): how often the gram occurs."""
    left: Counts
    """(G,): how many different symbols stand before it; for grams that begin a text, how often they occur."""

    def rank(self, codes: Ints) -> Ints:
        """Place of each code among the grams, -1 where it was never seen."""
        place, found = _search(self.codes, codes)
        return np.where(found, place, -1)


def count(stream: Stream, size: int, order: int) -> list[Grams]:
    """Count all grams up to `order` over an alphabet of `size` symbols; item k - 1 holds the k-grams.

    The 1-grams are all symbols, seen or not, so that a symbol is its own rank; BEGIN is never counted as predicted.
    """
    seen = np.bincount(stream.symbols, minlength=size).astype(np.int32)
    seen[BEGIN] = 0
    levels = [Grams(np.arange(size), seen, seen)]
    ranks = stream.symbols
    for length in range(2, order + 1):
        places = np.flatnonzero(stream.depth >= length - 1)
        codes = ranks[places - 1] * size + stream.symbols[places]
        order_of_codes = np.argsort(codes)
        codes = codes[order_of_codes]
        new = np.diff(codes, prepend=-1) != 0
        first = np.flatnonzero(new)
        suffix = ranks[places[order_of_codes[first]]]
        levels[-1] = _with_left(levels[-1], suffix)
        ranks = np.full(len(stream.symbols), -1)
        ranks[places[order_of_codes]] = np.cumsum(new) - 1
        seen = np.diff(np.append(first, len(codes))).astype(np.int32)
        levels.append(Grams(codes[first], seen, seen))
    return levels


def _with_left(grams: Grams, suffixes: Ints) -> Grams:
    """Count for each gram the distinct grams one symbol longer that end in it."""
    left = np.bincount(suffixes, minlength=len(grams.codes)).astype(np.int32)
    return dataclasses.replace(grams, left=np.where(left > 0, left, grams.seen))


def _search(sorted_values: npt.NDArray[Any], values: npt.NDArray[Any]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Find values in a sorted row: their places, and whether each is there."""
    place = np.searchsorted(sorted_values, values)
    if not len(sorted_values):
        return place, np.zeros(len(values), bool)
    place[place == len(sorted_values)] = 0
    return place, sorted_values[place] == values


def _points(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
