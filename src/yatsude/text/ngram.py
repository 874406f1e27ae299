"""Character n-gram models with interpolated, modified Kneser-Ney smoothing: what a neural model has to beat.

Chen & Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1999. With h a context, h' the same
without its oldest symbol, c(hw) a count and D(c) one of three discounts (for counts 1, 2, 3 and more):

    P(w | h) = (c(hw) - D(c(hw))) / c(h)  +  (sum of the discounts taken in h) / c(h) · P(w | h')

The longest order counts occurrences; shorter ones count how many different symbols stand before (except at the
beginning of a text, where nothing does). Below the single characters lies a uniform share for each symbol of the
alphabet, the end of the text and "unknown"; unknown characters share theirs evenly over Unicode's other code points.

>>> model = Ngram.fit(["こんにちは。", "こんばんは。"], order=3)
>>> model.bits_per_character(["こんにちは。"])
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from yatsude.errors import DataError
from yatsude.text.grams import BEGIN, UNKNOWN, Alphabet, Grams, Stream, count

__all__ = ["Ngram", "estimate_discounts", "fit_orders"]

Floats = npt.NDArray[np.float64]
Discounts = tuple[float, ...]
"""Four numbers: for a gram never seen (0.0), seen once, twice, three times or more."""

CODE_POINTS = 0x110000
FALLBACK: Discounts = (0.0, 0.5, 1.0, 1.5)
SCALES = (0.6, 0.75, 0.9, 1.1, 1.25, 1.5)
TUNING_CHARACTERS = 100_000
TUNING_BLOCK = 50


@dataclasses.dataclass(frozen=True)
class _Evidence:
    """What one order knows about P predictions: rows are predictions whose context was seen."""

    rows: npt.NDArray[np.int64]
    """Which predictions, (R,) out of P."""
    hits: Floats
    """(R,): count of the gram, 0 where unseen."""
    total: Floats
    """(R,): sum of the counts in its context."""
    kinds: Floats
    """(3, R): how many grams of the context have count 1, 2, 3 or more."""


class _Level:
    """One order of a model: its grams and the sums over each context."""

    def __init__(self, grams: Grams, counts: npt.NDArray[np.int32], contexts: int, size: int) -> None:
        """Take grams with the counts to use; there are `contexts` contexts and `size` symbols."""
        self.grams, self.counts = grams, counts
        owner = grams.codes // size
        kind = np.minimum(counts, 3)
        self.total = np.bincount(owner, counts, contexts).astype(np.float64)
        self.kinds = np.stack([np.bincount(owner[kind == n], minlength=contexts) for n in (1, 2, 3)]).astype(np.int32)

    def evidence(self, context: npt.NDArray[np.int64], rank: npt.NDArray[np.int64]) -> _Evidence:
        """Look up predictions by the rank of their context and of the whole gram, (P,) each, -1 for unseen."""
        rows = np.flatnonzero(context >= 0)
        rows = rows[self.total[context[rows]] > 0]
        context, rank = context[rows], rank[rows]
        hits = np.zeros(len(rows))
        hits[rank >= 0] = self.counts[rank[rank >= 0]]
        return _Evidence(rows, hits, self.total[context], self.kinds[:, context].astype(np.float64))


class Ngram:
    """A fitted model of one order; `discounts[k - 1]` are those of the k-grams."""

    def __init__(self, alphabet: Alphabet, grams: Sequence[Grams]) -> None:
        """Build the model of order `len(grams)`, with discounts estimated from its counts."""
        self.alphabet, self.order = alphabet, len(grams)
        contexts = [1, *(len(level.codes) for level in grams[:-1])]
        counts = [*(level.left for level in grams[:-1]), grams[-1].seen]
        self._levels = [
            _Level(level, used, number, alphabet.size)
            for level, used, number in zip(grams, counts, contexts, strict=True)
        ]
        self.discounts: list[Discounts] = [estimate_discounts(used) for used in counts]

    @classmethod
    def fit(cls, texts: Sequence[str], order: int) -> "Ngram":
        """Count, estimate the discounts, tune them on a slice of the same texts."""
        return fit_orders(texts, (order,))[order]

    @property
    def symbols(self) -> list[str]:
        """What `distribution` predicts, in its order: the end "", then "unknown", then the alphabet."""
        return ["", "unknown", *map(chr, self.alphabet.points)]

    def distribution(self, start: str) -> Floats:
        """Probability of each of `symbols` after a text that begins with `start`; they sum to 1."""
        before = self.alphabet.stream([start]).symbols[:-1]
        candidates = np.setdiff1d(np.arange(self.alphabet.size), [BEGIN])
        rows = np.column_stack([np.tile(before, (len(candidates), 1)), candidates])
        depth = np.tile(np.arange(rows.shape[1], dtype=np.int32), len(rows))
        chances = _mix(*self._evidence(Stream(rows.ravel(), depth)), self.discounts, self.alphabet.size)
        return chances.reshape(len(rows), -1)[:, -1]

    def bits(self, texts: Sequence[str]) -> float:
        """Bits that all texts take, each with its end."""
        stream = self.alphabet.stream(texts)
        chances = _mix(*self._evidence(stream), self.discounts, self.alphabet.size)
        unknown = np.count_nonzero(stream.symbols == UNKNOWN) * np.log2(CODE_POINTS - len(self.alphabet.points))
        return float(unknown - np.log2(chances).sum())

    def bits_per_character(self, texts: Sequence[str]) -> float:
        """Bits of all texts, ends included, over their characters, ends not counted."""
        characters = sum(map(len, texts))
        if not characters:
            raise DataError(f"{len(texts)} texts without a single character: there is nothing to measure")
        return self.bits(texts) / characters

    def tuned(self, texts: Sequence[str]) -> list[Discounts]:
        """Discounts that fit `texts` better, found by scaling those of one order and count at a time."""
        predictions, evidence = self._evidence(self.alphabet.stream(texts))
        found = list(self.discounts)
        best = _cost(predictions, evidence, found, self.alphabet.size)
        for level, kind, scale in itertools.product(reversed(range(self.order)), (3, 2, 1), SCALES):
            trial = _with(found, level, kind, scale * self.discounts[level][kind])
            if (cost := _cost(predictions, evidence, trial, self.alphabet.size)) < best:
                best, found = cost, trial
        return found

    def _evidence(self, stream: Stream) -> tuple[int, list[_Evidence]]:
        """Look up every symbol of a stream but BEGIN, at each order: the number of predictions and the evidence."""
        places = np.flatnonzero(stream.depth > 0)
        ranks = stream.symbols
        found = [self._levels[0].evidence(np.zeros(len(places), np.int64), ranks[places])]
        for length, level in enumerate(self._levels[1:], start=2):
            context = np.where(stream.depth[places] >= length - 1, ranks[places - 1], -1)
            rank = np.full(len(places), -1)
            known = context >= 0
            rank[known] = level.grams.rank(context[known] * self.alphabet.size + stream.symbols[places[known]])
            found.append(level.evidence(context, rank))
            ranks = np.full(len(stream.symbols), -1)
            ranks[places] = rank
        return len(places), found


def fit_orders(texts: Sequence[str], orders: Iterable[int], tune: bool = True) -> dict[int, Ngram]:
    """Fit models of several orders and count only once; each is keyed by its order.

    With `tune`, the discounts are tuned on a slice of the texts by models of the other texts, then scaled the same way
    in the models of all texts.
    """
    orders = sorted(set(orders))
    if not any(texts) or not orders or orders[0] < 1:
        raise DataError(f"n-grams of orders {orders} of {len(texts)} texts: expected orders from 1 and some text")
    models = _count_and_build(texts, orders)
    if tune and len(texts) > 1:
        rest, held = _slice(texts)
        for order, part in _count_and_build(rest, orders).items():
            better = part.tuned(held)
            models[order].discounts = [
                _rescaled(own, before, after)
                for own, before, after in zip(models[order].discounts, part.discounts, better, strict=True)
            ]
    return models


def estimate_discounts(counts: npt.NDArray[np.int32]) -> Discounts:
    """Chen & Goodman's estimate from how many grams have count 1, 2, 3 and 4; a fixed guess where it makes no sense."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == n)) for n in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < d <= n for n, d in enumerate(found) if n) else FALLBACK


def _count_and_build(texts: Sequence[str], orders: Sequence[int]) -> dict[int, Ngram]:
    alphabet = Alphabet.of(texts)
    grams = count(alphabet.stream(texts), alphabet.size, max(orders))
    return {order: Ngram(alphabet, grams[:order]) for order in orders}


def _slice(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off at most one text in twenty, and about as many as `TUNING_CHARACTERS` need.

    Neighbours are taken together: a text whose near-twin stays behind would ask for discounts that are too small.
    """
    block = max(1, min(TUNING_BLOCK, len(texts) // 20))
    step = min(max(20, sum(map(len, texts)) // TUNING_CHARACTERS), -(-len(texts) // block))
    held = [(n // block) % step == 0 for n in range(len(texts))]
    rest = [text for text, out in zip(texts, held, strict=True) if not out]
    return rest, [text for text, out in zip(texts, held, strict=True) if out]


def _mix(predictions: int, evidence: Sequence[_Evidence], discounts: Sequence[Discounts], size: int) -> Floats:
    """Probability of each prediction, (P,): from the uniform share up through the orders."""
    chances = np.full(predictions, 1 / (size - 1))  # every symbol but BEGIN
    for order, discount in zip(evidence, discounts, strict=True):
        taken = np.array(discount)[np.minimum(order.hits, 3).astype(np.intp)]
        freed = np.array(discount[1:]) @ order.kinds
        chances[order.rows] = (order.hits - taken + freed * chances[order.rows]) / order.total
    return chances


def _cost(predictions: int, evidence: Sequence[_Evidence], discounts: Sequence[Discounts], size: int) -> float:
    return float(-np.log2(_mix(predictions, evidence, discounts, size)).sum())


def _with(discounts: Sequence[Discounts], level: int, kind: int, value: float) -> list[Discounts]:
    """Replace one discount, never by more than the count it is taken from."""
    old = discounts[level]
    changed = (*old[:kind], min(value, float(kind)), *old[kind + 1 :])
    return [*discounts[:level], changed, *discounts[level + 1 :]]


def _rescaled(own: Discounts, before: Discounts, after: Discounts) -> Discounts:
    """Change a model's own discounts by the factors that tuning found on another."""
    return (0.0, *(min(own[n] * after[n] / before[n], float(n)) for n in (1, 2, 3)))
