"""The router board as lines of JSON and as words on the screen; `router_page.py` has its pictures.

`router.jsonl` holds one object a line; layers and experts are counted from 1, a list goes over the experts:

{"figure": "load", "text": "all", "layer": 1, "load": [...], "busiest": 1.3, "idlest": 0.7, "entropy": 0.98, "dead": 0,
 "bias_range": 0.4}                                            bias_range is null for a router without a bias
{"figure": "load", "text": "law", "layer": 1, "load": [...], "lift": [...]}         a kind of text, or a style
{"figure": "percentiles", "of": "busiest", "p10": 1.1, "p50": 1.2, "p90": 1.4}      over the layers
{"figure": "information", "about": "kind", "layer": 1, "bits": 0.08, "chance": 0.01, "chance_95": 0.02, "p": 0.005,
 "most": 1.0, "units": {"law": 32, ...}, "shuffles": 200}      also "kind given token", "style"; null: mean of layers
{"figure": "specialist", "layer": 1, "expert": 3, "kind": "law", "lift": 1.8, "bits": 0.02, "tokens": ["条", ...]}
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from yatsude.evaluate.information import Information
from yatsude.evaluate.results import ExpertLoad
from yatsude.evaluate.router import lift
from yatsude.evaluate.words import information_verdict
from yatsude.files import new_file

__all__ = ["lines", "screen", "write"]

ALL = "all"


def write(path: Path, load: ExpertLoad) -> None:
    """Write `router.jsonl`, atomically."""
    with new_file(path) as draft:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines(load))
        draft.write_text(text, encoding="utf-8")


def lines(load: ExpertLoad) -> Iterator[dict[str, Any]]:
    """Every figure of the board, one after the other, rounded to six digits."""
    for line in _lines(load):
        yield {name: _rounded(value) for name, value in line.items()}


def screen(load: ExpertLoad) -> str:
    """Show the board in a terminal: a row a layer, the percentiles, the specialists, and what chance says."""
    if not load.layers:
        return "this model has no mixture layer"
    head = ["layer", "busiest", "idlest", "entropy", "dead", "bias range", "about kind", "chance", "p"]
    rows = [[str(number), *_layer(load, number - 1)] for number in range(1, len(load.layers) + 1)]
    over = [[f"p{share}", *_percentile(load, f"p{share}")] for share in (10, 50, 90)]
    shown = rows if load.shallow else []
    text = [_table([head, *shown, *(over if len(rows) > 2 else [])])]
    if load.specialists:
        names = [["layer", "expert", "prefers", "lift", "tokens over expectation"]]
        names += [[str(s.layer), str(s.expert), s.kind, f"{s.lift:.2f}", " ".join(s.tokens)] for s in load.specialists]
        text.append(_table(names))
    text.append("\n".join(_sentence(about, found) for about, found in load.findings.items()))
    return "\n\n".join(text)


def _lines(load: ExpertLoad) -> Iterator[dict[str, Any]]:
    for number, layer in enumerate(load.layers):
        figures = {"load": load.all[number], **dataclasses.asdict(layer)}
        yield {"figure": "load", "text": ALL, "layer": number + 1, **figures}
    for tables in (load.kinds, load.styles):
        for text, lifts in lift(tables).items() if tables else ():
            for number, row in enumerate(lifts):
                yield {"figure": "load", "text": text, "layer": number + 1, "load": tables[text][number], "lift": row}
    for name, found in load.percentiles.items():
        yield {"figure": "percentiles", "of": name, **dataclasses.asdict(found)}
    for about, information in load.findings.items():
        if information:
            yield from _information(about, information)
    for specialist in load.specialists:
        yield {"figure": "specialist", **dataclasses.asdict(specialist)}


def _information(about: str, found: Information) -> Iterator[dict[str, Any]]:
    common = {"most": found.most, "units": found.units, "shuffles": found.shuffles}
    numbered: list[tuple[int | None, Any]] = [*enumerate(found.layers, 1), (None, found.mean)]
    for layer, finding in numbered:
        yield {"figure": "information", "about": about, "layer": layer, **dataclasses.asdict(finding), **common}


def _rounded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _layer(load: ExpertLoad, number: int) -> list[str]:
    layer = load.layers[number]
    bias = "-" if layer.bias_range is None else f"{layer.bias_range:.3f}"
    figures = [f"{layer.busiest:.2f}", f"{layer.idlest:.2f}", f"{layer.entropy:.3f}", str(layer.dead), bias]
    if not load.by_kind:
        return [*figures, "-", "-", "-"]
    found = load.by_kind.layers[number]
    return [*figures, f"{found.bits:.4f}", f"{found.chance:.4f}", f"{found.p:.3f}"]


def _percentile(load: ExpertLoad, share: str) -> list[str]:
    names = {"busiest": ".2f", "idlest": ".2f", "entropy": ".3f", "dead": ".0f", "bias_range": ".3f"}
    known = load.percentiles
    return [f"{getattr(known[name], share):{form}}" if name in known else "-" for name, form in names.items()]


def _sentence(about: str, found: Information | None) -> str:
    units = ", ".join(f"{kind} {number}" for kind, number in found.units.items()) if found else ""
    return information_verdict(about, found)[1] + (f" Units of text: {units}." if found else "")


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns to the right, but for the last; rows may be short."""
    from rich.cells import cell_len  # noqa: PLC0415

    inner = max(map(len, rows)) - 1
    wide = [max(cell_len(row[n]) for row in rows if n < len(row)) for n in range(inner)]
    lines = []
    for row in rows:
        cells = [" " * (width - cell_len(text)) + text for text, width in zip(row, wide, strict=False)]
        lines.append("  ".join([*cells, *row[inner:]]).rstrip())
    return "\n".join(lines)
