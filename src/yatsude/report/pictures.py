"""Pictures for a report, drawn by matplotlib and returned as one `<svg>` element each.

Text stays text, in whatever Japanese font the reader has; colours are the page's CSS variables with a fallback, so a
picture follows light and dark on a page and still stands alone in a file. The same numbers give the same bytes.
"""

import hashlib
import html
import io
import re
import unicodedata
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bars", "crossing", "heat_map", "lines"]

Series = Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
"""Name -> (x, y), two rows of numbers of the same length."""

# Stand-ins while matplotlib draws; `_finish` puts the page's variables in their place.
INK, SOFT, RULE, PAPER = "#010101", "#020202", "#030303", "#040404"
COLOURS = ("#050501", "#050502", "#050503", "#050504", "#050505", "#050506")
VARIABLES = {
    INK: "var(--ink, #23272a)",
    SOFT: "var(--soft, #686e72)",
    RULE: "var(--rule, #e1ded6)",
    PAPER: "var(--paper, #fbfaf7)",
    **{
        stand_in: f"var(--c{n}, {colour})"
        for n, (stand_in, colour) in enumerate(
            zip(COLOURS, ("#2c7a57", "#3d5f9a", "#b5761d", "#ab4c3a", "#76508a", "#5f7f86"), strict=True), start=1
        )
    },
}
FONTS = (
    "system-ui, 'Hiragino Sans', 'Hiragino Kaku Gothic ProN', 'Noto Sans JP', 'Noto Sans CJK JP',"
    " 'Yu Gothic', Meiryo, sans-serif"
)
SIZE = 8.5
"""Text size in points, on a picture 540 points wide."""
WIDTH = 540
LOADS = ("#b5761d", "#e8c98f", "#f5f2ea", "#8fc3a6", "#1f6446")


def lines(
    series: Series,
    *,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    y_range: tuple[float, float] | None = None,
    height: int = 300,
) -> str:
    """Draw curves, with dashed horizontal `levels`; where a curve first reaches one, a ring and its x below.

    Every curve is named at its end, every level at the right edge. `y_range` cuts off what lies outside.
    """
    low, high = y_range or (-np.inf, np.inf)
    levels = {name: level for name, level in (levels or {}).items() if low <= level <= high}
    names = [*series, *levels]
    figure, axes = _canvas(height, left=34, right=14 + max(map(_wide, names), default=0), top=24)
    _plain(axes, x_label, y_label)
    ends: dict[str, tuple[float, str]] = {name: (level, SOFT) for name, level in levels.items()}
    crossings: list[tuple[float, float, str]] = []
    for level in levels.values():
        axes.axhline(level, color=SOFT, linewidth=0.8, dashes=(3, 3))
    for number, (name, (x_values, y_values)) in enumerate(series.items()):
        x, y = np.asarray(x_values, float), np.asarray(y_values, float)
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(x, y, color=colour, linewidth=1.7, solid_capstyle="round", zorder=3)
        ends[name] = (float(y[-1]), colour)
        crossings += [
            (place, level, colour) for level in levels.values() if (place := crossing(x, y, level)) is not None
        ]
    if y_range:
        axes.set_ylim(*y_range)
    for place, level, colour in crossings:
        _ring(axes, place, level, colour)
    axes.margins(x=0)
    _name_ends(axes, ends, height)
    return _finish(figure, f"{y_label} / {x_label}: {', '.join(names)}")


def heat_map(
    values: npt.ArrayLike,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x_label: str = "",
    y_label: str = "",
    centre: float,
    reach: float | None = None,
) -> str:
    """Draw a table of numbers, shape (rows, columns), as coloured cells, row 0 on top.

    What lies below and above `centre`, such as 1.0 for an even load, has different colours, darkest from `reach`
    away on (not given: where the table lies farthest). Cells show their number while there is room for it.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize  # noqa: PLC0415 - slow to import

    table = np.asarray(values, float)
    cell = max(3.0, min(30.0, 420 / max(len(rows), 1)))
    left, top = 14 + max(map(_wide, rows), default=0), 24 if y_label else 6
    figure, axes = _canvas(int(cell * len(rows)) + top + 40, left=left, right=8, top=top, bottom=40)
    reach = reach or float(np.abs(table - centre).max()) or 1.0
    norm = Normalize(centre - reach, centre + reach)
    shades = LinearSegmentedColormap.from_list("loads", LOADS)
    many = table.size > 1024  # as one bitmap: a path a cell would weigh megabytes
    axes.pcolormesh(
        table, cmap=shades, norm=norm, edgecolors="none" if many else PAPER, linewidth=0 if many else 1, rasterized=many
    )
    axes.invert_yaxis()
    _plain(axes, x_label, y_label, grid=False)
    axes.spines[:].set_visible(False)
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        step = -(-len(names) // (16 if axis is axes.xaxis else 32))
        axis.set_ticks(np.arange(0, len(names), step) + 0.5, names[::step])
    if len(columns) <= 16 and cell >= 12:
        for (row, column), value in np.ndenumerate(table):
            dark = not 0.1 <= norm(value) <= 0.8
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SIZE - 0.5}
            axes.text(column + 0.5, row + 0.5, f"{value:.2f}", color="#ffffff" if dark else "#23272a", **style)
    return _finish(figure, f"{y_label} × {x_label}")


def bars(
    values: Mapping[str, float], *, emphasis: Collection[str] = (), marks: Mapping[str, float] | None = None
) -> str:
    """Draw one horizontal bar a name, its value at its end; names in `emphasis` have the strong colour.

    `marks` are ticks across the bars of those names, such as what chance would give.
    """
    shown = {name: f"{value:,.3f}" for name, value in values.items()}
    left, right = (14 + max(map(_wide, texts), default=0) for texts in (shown, shown.values()))
    figure, axes = _canvas(22 * len(values) + 12, left=left, right=right, top=4, bottom=4)
    places = np.arange(len(values))
    colours = [COLOURS[0] if name in emphasis or not emphasis else RULE for name in values]
    axes.barh(places, list(values.values()), height=0.62, color=colours)
    for place, (name, text) in enumerate(shown.items()):
        end = max(values[name], (marks or {}).get(name, 0), 0)
        axes.annotate(text, (end, place), (5, 0), textcoords="offset points", **_text(INK))
        if marks and name in marks:
            axes.plot([marks[name]] * 2, [place - 0.42, place + 0.42], color=COLOURS[3], linewidth=1.6)
    axes.set_yticks(places, list(values))
    axes.tick_params(length=0, labelsize=SIZE, labelcolor=INK)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    return _finish(figure, ", ".join(f"{name} {text}" for name, text in shown.items()))


def crossing(x: npt.ArrayLike, y: npt.ArrayLike, level: float) -> float | None:
    """Find the x at which a curve that began above `level` first reaches it, between points by a straight line."""
    across, along = np.asarray(x, float), np.asarray(y, float)
    below = np.flatnonzero(along <= level)
    if not len(below) or below[0] == 0:
        return None
    after = below[0]
    part = (along[after - 1] - level) / (along[after - 1] - along[after])
    return float(across[after - 1] + part * (across[after] - across[after - 1]))


def _canvas(height: int, *, left: float, right: float, top: float = 10, bottom: float = 36) -> tuple["Figure", "Axes"]:
    """Open a picture of WIDTH × height points with margins in points."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(WIDTH / 72, height / 72))
    box = (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (top + bottom) / height)
    axes = figure.add_axes(box)
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    return figure, axes


def _plain(axes: "Axes", x_label: str, y_label: str, grid: bool = True) -> None:
    """Leave only what is read: soft numbers, a hair of a grid, labels at the ends of the axes."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(length=0, labelsize=SIZE, labelcolor=SOFT, pad=5)
    if grid:
        axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_label, fontsize=SIZE, color=SOFT, labelpad=6)
    edge = (4 - axes.get_position().x0 * WIDTH, 12)
    axes.annotate(y_label, (0, 1), edge, xycoords="axes fraction", textcoords="offset points", **_text(SOFT))


def _ring(axes: "Axes", x: float, y: float, colour: str) -> None:
    """Mark a crossing, and drop a hair down to where its x is written."""
    foot = axes.get_ylim()[0]
    axes.plot([x, x], [foot, y], color=colour, linewidth=0.6, dashes=(1, 2), scaley=False)
    axes.plot([x], [y], "o", markersize=5, markerfacecolor=PAPER, markeredgecolor=colour, markeredgewidth=1.3, zorder=4)
    axes.annotate(f"{x:.3g}", (x, foot), (4, 7), textcoords="offset points", zorder=5, **_text(colour))


def _name_ends(axes: "Axes", ends: Mapping[str, tuple[float, str]], height: int) -> None:
    """Write names at the right edge, moved apart where they would touch."""
    low, high = axes.get_ylim()
    line = (SIZE + 4) / (height - 46) * (high - low)
    places: list[float] = []
    ordered = sorted(ends.items(), key=lambda item: item[1][0])
    for _, (value, _) in ordered:
        wanted = min(max(value, low), high)
        places.append(max(wanted, places[-1] + line) if places else wanted)
    surplus = max(0.0, places[-1] - high) if places else 0.0
    for (name, (_, colour)), place in zip(ordered, places, strict=True):
        axes.annotate(
            name,
            (1, place - surplus),
            (6, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            **_text(colour),
        )


def _text(colour: str) -> dict[str, Any]:
    return {"color": colour, "fontsize": SIZE, "va": "center", "annotation_clip": False}


def _wide(text: str) -> float:
    """Guess the width of text in points: the reader's font is not known here."""
    return SIZE * sum(1.0 if unicodedata.east_asian_width(c) in "WFA" else 0.58 for c in text)


def _finish(figure: "Figure", description: str) -> str:
    """Write the SVG element: text as text, page colours, ids that no other picture on the page has."""
    import matplotlib as mpl  # noqa: PLC0415

    page = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "yatsude"}), warnings.catch_warnings():
        # the bundled font measures only; the reader's own font draws
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(page, format="svg", dpi=192, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = page.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r'(font: [\d.]+px|font-family:) [^;"]*', rf"\1 {FONTS}", svg)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>y{mark}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1).strip()
