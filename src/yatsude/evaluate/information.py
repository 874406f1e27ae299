"""How much the expert of a token tells about its text, in bits, and how much it would tell by chance.

The mutual information between a label and an expert, the labels weighing the same, is

    I = H(mean of p(e | label)) - mean of H(p(e | label))

Counts of a few texts are never quite alike, so I is above 0 even where the label means nothing. Chance is found by
dealing the labels anew to the units of text (a permutation test; tokens of one text depend on each other and stay
together). p is the share of such deals, the true one counted in, that tell as much as the truth
(Phipson & Smyth, "Permutation P-values Should Never Be Zero", 2010).

With strata, such as kinds of text, labels are compared and dealt within each alone: I is then what the label tells
beyond the stratum.

Given the token, I is what is left where the words are the same: for each token the information between label and
expert, the tokens weighing by how often they occur. It is 0 for a router that only looks the token up.

Shapes: U units of text, L mixture layers, E experts, V tokens of the vocabulary.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "Finding",
    "Information",
    "against_chance",
    "comparable",
    "information",
    "information_given_token",
    "shares",
    "token_against_chance",
]

Counts = npt.NDArray[np.int64]
Labels = npt.NDArray[np.str_]
Floats = npt.NDArray[np.float64]

LEAST_UNITS = 2
"""A label with fewer units of text is not compared."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Information in bits beside what chance gives."""

    bits: float
    chance: float
    """Mean over the deals."""
    chance_95: float
    """Nineteen deals of twenty stay below."""
    p: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Information:
    """What the experts tell about one sort of label, such as the kind of text."""

    units: dict[str, int]
    """Units of text of each label."""
    most: float
    """The most bits there could be: log2 of the labels, or of the experts where they are fewer."""
    layers: list[Finding]
    mean: Finding
    """Of the mean over the layers, by the same deals: one test for the whole model."""
    shuffles: int


def comparable(labels_U: Sequence[str | None], strata_U: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which units can be compared: of a label with two units in a stratum that has another such label, (U,)."""
    places = list(zip(strata_U, labels_U, strict=True))
    cells = Counter(places)
    rivals = Counter(stratum for (stratum, label), units in cells.items() if label and units >= LEAST_UNITS)
    found = [bool(label) and cells[s, label] >= LEAST_UNITS and rivals[s] > 1 for s, label in places]
    return np.array(found, np.bool_)


def shares(counts_ULE: Counts, labels_U: Labels) -> dict[str, Floats]:
    """Distribution over experts of each label's tokens, (L, E) each."""
    sums = {str(label): counts_ULE[labels_U == label].sum(0) for label in np.unique(labels_U)}
    return {label: total / np.maximum(total.sum(-1, keepdims=True), 1) for label, total in sums.items()}


def information(counts_ULE: Counts, labels_U: Labels, strata_U: Labels) -> Floats:
    """Mutual information in bits between label and expert, (L,); the strata weigh by their units."""
    total = np.zeros(counts_ULE.shape[1])
    for stratum in np.unique(strata_U):
        rows = strata_U == stratum
        found = np.stack(list(shares(counts_ULE[rows], labels_U[rows]).values()))
        bits = _entropy(found.mean(0)) - _entropy(found).mean(0)
        total += rows.mean() * np.maximum(bits, 0)
    return total


def against_chance(
    counts_ULE: Counts, labels_U: Sequence[str | None], strata_U: Sequence[str], *, shuffles: int, seed: int
) -> Information | None:
    """Hold the information against chance; None where fewer than two labels can be compared."""
    rows = comparable(labels_U, strata_U)
    if not rows.any() or not counts_ULE.shape[1]:
        return None
    counts, labels, strata = counts_ULE[rows], np.array(labels_U, str)[rows], np.array(strata_U, str)[rows]
    deals = _deals(labels, strata, shuffles, seed)
    return _held(np.stack([information(counts, deal, strata) for deal in deals]), labels, counts.shape[-1])


def information_given_token(counts_UVE: Counts, labels_U: Labels) -> float:
    """Mutual information in bits between label and expert of tokens that are the same."""
    flat = counts_UVE.reshape(len(counts_UVE), -1).astype(np.float32)
    of_label = np.stack([labels_U == label for label in np.unique(labels_U)]).astype(np.float32)
    labelled_KVE = (of_label @ flat).reshape(-1, *counts_UVE.shape[1:]).astype(np.float64)
    bits = _surprise(labelled_KVE.sum(0)) - _surprise(labelled_KVE)
    return max(bits / max(float(counts_UVE.sum()), 1), 0.0)


def token_against_chance(
    layers: Iterable[Counts], labels_U: Sequence[str], *, shuffles: int, seed: int
) -> Information | None:
    """Hold the information given the token against chance; `layers` are counts (U, V, E), bottom to top.

    None where fewer than two labels can be compared, or no layer or no token is there.
    """
    strata = [""] * len(labels_U)
    rows = comparable(labels_U, strata)
    if not rows.any():
        return None
    labels = np.array(labels_U, str)[rows]
    deals = _deals(labels, np.array(strata, str)[rows], shuffles, seed)
    columns, experts = [], 0
    for counts_UVE in layers:
        columns.append([information_given_token(counts_UVE[rows], deal) for deal in deals])
        experts = counts_UVE.shape[-1]
    return _held(np.array(columns).T, labels, experts) if columns else None


def _deals(labels: Labels, strata: Labels, shuffles: int, seed: int) -> list[Labels]:
    """The true labels, then the same in another order, within each stratum, `shuffles` times."""
    generator = np.random.default_rng(seed)
    found = [labels]
    for _ in range(shuffles):
        deal = labels.copy()
        for stratum in np.unique(strata):
            rows = np.flatnonzero(strata == stratum)
            deal[rows] = labels[generator.permutation(rows)]
        found.append(deal)
    return found


def _held(values_DL: Floats, labels: Labels, experts: int) -> Information:
    """Hold the first row, the truth, against the others."""
    units = Counter(labels.tolist())
    return Information(
        units=dict(sorted(units.items())),
        most=float(np.log2(min(len(units), experts))),
        layers=[_finding(column[0], column[1:]) for column in values_DL.T],
        mean=_finding(values_DL[0].mean(), values_DL[1:].mean(1)),
        shuffles=len(values_DL) - 1,
    )


def _finding(true: float, dealt: Floats) -> Finding:
    reached = int((dealt >= true - 1e-12).sum())
    return Finding(
        bits=float(true),
        chance=float(dealt.mean()),
        chance_95=float(np.quantile(dealt, 0.95)),
        p=(1 + reached) / (1 + len(dealt)),
    )


def _surprise(counts: Floats) -> float:
    """Bits that the experts of all these tokens take, each cell's experts coded by their own frequencies."""
    totals = counts.sum(-1)
    return float((totals * np.log2(np.maximum(totals, 1))).sum() - (counts * np.log2(np.maximum(counts, 1))).sum())


def _entropy(shares: Floats) -> Floats:
    """In bits, over the last axis."""
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(-1)
