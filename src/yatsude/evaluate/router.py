"""Where the router sends tokens: the load of each expert for each kind and style of text, and what that tells.

Shapes: L mixture layers, E experts, K kinds of text, U units of text.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from yatsude.evaluate.heldout import Tokens
from yatsude.evaluate.information import Floats, Information, against_chance, comparable, shares, token_against_chance
from yatsude.evaluate.results import ExpertLoad, Specialist
from yatsude.evaluate.routes import Routes, Unit, follow, units
from yatsude.model.router_stats import layer_loads, percentiles, relative_load
from yatsude.model.transformer import Transformer
from yatsude.text.style import style
from yatsude.tokenizer.tokenizer import Tokenizer

__all__ = ["lift", "measure"]

SPECIALISTS = 8
COMMON = 128
"""Tokens, the most frequent of those in two kinds of text at least, for which the kinds are compared token by token."""
TOKENS = 6
"""So many tokens are named for a specialist, of those that it got at least `SEEN` times."""
SEEN = 4


def measure(
    model: Transformer,
    tokenizer: Tokenizer,
    kinds: Mapping[str, Iterable[Tokens]],
    *,
    window: int,
    tokens: int,
    shuffles: int,
    seed: int,
) -> ExpertLoad:
    """Follow about `tokens` tokens, the same number of each kind as far as there are enough, in units of `window`.

    Chance is what `shuffles` deals of the kinds, and of the styles, to the units of text give.
    """
    read = units(kinds, lambda text: style(tokenizer.decode(text.tolist())), window, tokens)
    routes = follow(model, read)
    counts_ULE = routes.counts(len(read))
    names, styles = [unit.kind for unit in read], [unit.style for unit in read]
    by_kind = shares(counts_ULE, np.array(names, str))
    layers = layer_loads(_mean(by_kind), routes.biases)
    return ExpertLoad(
        all=relative_load(_mean(by_kind)).tolist(),
        kinds=_loads(by_kind),
        styles=_loads(_by_style(counts_ULE, read)),
        layers=layers,
        percentiles=percentiles(layers),
        by_kind=against_chance(counts_ULE, names, [""] * len(read), shuffles=shuffles, seed=seed),
        by_kind_given_token=_given_token(routes, names, shuffles, seed),
        by_style=against_chance(counts_ULE, styles, names, shuffles=shuffles, seed=seed),
        specialists=_specialists(by_kind, routes, tokenizer),
        tokens=len(routes.tokens_N),
    )


def lift(kinds: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[list[float]]]:
    """Load of each kind over the mean of all kinds, (L, E) each: 1 where a kind uses an expert as the others do.

    An expert that no kind uses has 1.
    """
    tables = {kind: np.asarray(load, float) for kind, load in kinds.items()}
    mean_LE = np.mean(list(tables.values()), axis=0)
    return {
        kind: np.divide(load, mean_LE, out=np.ones_like(mean_LE), where=mean_LE > 0).tolist()
        for kind, load in tables.items()
    }


def _given_token(routes: Routes, names: Sequence[str], shuffles: int, seed: int) -> Information | None:
    kinds_N = np.unique(np.array(names, str), return_inverse=True)[1][routes.units_N]
    ids, places_N = np.unique(routes.tokens_N, return_inverse=True)
    seen = np.bincount(places_N)
    pairs = np.unique(np.stack([places_N, kinds_N]), axis=1)
    shared = np.flatnonzero(np.bincount(pairs[0], minlength=len(ids)) > 1)
    common = ids[shared[np.argsort(-seen[shared], kind="stable")[:COMMON]]]
    if not len(common):
        return None
    return token_against_chance(routes.token_counts(len(names), np.sort(common)), names, shuffles=shuffles, seed=seed)


def _by_style(counts_ULE: np.ndarray, read: Sequence[Unit]) -> dict[str, Floats]:
    """Distribution over experts of each style, (L, E): the mean over the kinds of text that have the style to compare.

    Kinds where only one style is found are left out, or the style would stand for the kind.
    """
    rows = comparable([unit.style for unit in read], [unit.kind for unit in read])
    kept = [(unit.style, unit.kind) for unit, good in zip(read, rows, strict=True) if good]
    found: dict[str, list[Floats]] = {}
    for kind in dict.fromkeys(kind for _, kind in kept):
        labels = np.array([style or "" for style, other in kept if other == kind], str)
        here = counts_ULE[rows][[other == kind for _, other in kept]]
        for name, table in shares(here, labels).items():
            found.setdefault(name, []).append(table)
    return {name: np.mean(tables, axis=0) for name, tables in sorted(found.items())}


def _specialists(by_kind: Mapping[str, Floats], routes: Routes, tokenizer: Tokenizer) -> tuple[Specialist, ...]:
    """The experts with the greatest part in the information about the kind."""
    if len(by_kind) < 2 or not len(routes.chosen_LNK):
        return ()
    names, shares_KLE = list(by_kind), np.stack(list(by_kind.values()))
    mean_LE = shares_KLE.mean(0)
    lift_KLE = np.divide(shares_KLE, mean_LE, out=np.ones_like(shares_KLE), where=mean_LE > 0)
    bits_LE = (shares_KLE * np.log2(np.where(lift_KLE > 0, lift_KLE, 1))).mean(0)
    order = np.argsort(-bits_LE, axis=None, kind="stable")[:SPECIALISTS]
    found = []
    for layer, expert in zip(*np.unravel_index(order, bits_LE.shape), strict=True):
        kind = int(lift_KLE[:, layer, expert].argmax())
        found.append(
            Specialist(
                layer=int(layer) + 1,
                expert=int(expert) + 1,
                kind=names[kind],
                lift=float(lift_KLE[kind, layer, expert]),
                bits=float(bits_LE[layer, expert]),
                tokens=_favourites(routes, int(layer), int(expert), tokenizer),
            )
        )
    return tuple(found)


def _favourites(routes: Routes, layer: int, expert: int, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Tokens of one expert, those first that it gets most often over expectation, in standard deviations."""
    ids, places_N = np.unique(routes.tokens_N, return_inverse=True)
    got_N = (routes.chosen_LNK[layer] == expert).any(-1)
    seen, got = np.bincount(places_N), np.bincount(places_N[got_N], minlength=len(ids))
    expected = seen * got_N.mean()
    excess = (got - expected) / np.sqrt(np.maximum(expected, 1e-9))
    order = [place for place in np.argsort(-excess, kind="stable") if got[place] >= SEEN and excess[place] > 0]
    words = (tokenizer.decode([int(ids[place])]).replace("\n", "⏎") for place in order)
    return tuple(dict.fromkeys(word for word in words if word.strip("\ufffd ")))[:TOKENS]


def _mean(by_kind: Mapping[str, Floats]) -> torch.Tensor:
    return torch.from_numpy(np.mean(list(by_kind.values()), axis=0))


def _loads(by_label: Mapping[str, Floats]) -> dict[str, list[list[float]]]:
    return {label: relative_load(torch.from_numpy(table)).tolist() for label, table in by_label.items()}
