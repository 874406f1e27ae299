"""One page of results: a single HTML file without scripts, that opens offline and prints.

>>> page = Page("評価の記録", lead="2 コア、10 分")
>>> page.section("文字あたりのビット数")
>>> page.table(["モデル", "ビット/文字"], [["4-gram", 3.32], ["yatsude", 3.25]])
>>> page.write(Path("report.html"))
"""

import html
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path

from yatsude.files import new_file

__all__ = ["Page"]


class Page:
    """A title and, below it, what is added in order. All text is escaped; only pictures are taken as markup."""

    def __init__(self, title: str, *, lead: str = "") -> None:
        """Begin a page in Japanese; `lead` is the line under the title."""
        self._title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>"]
        if lead:
            self._parts.append(f'<p class="lead">{html.escape(lead)}</p>')

    def section(self, title: str) -> None:
        """Open a section."""
        self._parts.append(f"<h2>{html.escape(title)}</h2>")

    def text(self, paragraph: str) -> None:
        """Add a paragraph of plain text."""
        self._parts.append(f"<p>{html.escape(paragraph)}</p>")

    def figures(self, values: Mapping[str, object]) -> None:
        """Add a row of the figures that matter most, each with its name above it."""
        pairs = (f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(_shown(v))}</dd></div>" for k, v in values.items())
        self._parts.append(f'<dl class="figures">{"".join(pairs)}</dl>')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> None:
        """Add a table. Columns of numbers stand to the right; a number is shown to four digits, None as a dash."""
        numeric = [any(map(_is_number, column)) for column in zip(*rows, strict=True)] or [False] * len(head)
        top = "".join(_cell("th", name, number) for name, number in zip(head, numeric, strict=True))
        body = "\n".join(
            f"<tr>{''.join(_cell('td', _shown(v), number) for v, number in zip(row, numeric, strict=True))}</tr>"
            for row in rows
        )
        under = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        table = f"<table>{under}<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
        self._parts.append(f'<div class="wide">{table}</div>')

    def picture(self, svg: str, caption: str = "") -> None:
        """Add an SVG element, such as those of `report.pictures`."""
        under = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        self._parts.append(f"<figure><div>{svg}</div>{under}</figure>")

    def sample(self, text: str, label: str = "") -> None:
        """Add text that a model wrote, line breaks kept, under a small label."""
        name = f"<b>{html.escape(label)}</b>" if label else ""
        self._parts.append(f"<blockquote>{name}{html.escape(text)}</blockquote>")

    def html(self) -> str:
        """Return the whole page as one string."""
        style = importlib.resources.files("yatsude.report").joinpath("page.css").read_text(encoding="utf-8")
        return (
            f'<!doctype html>\n<html lang="ja">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(self._title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
            + "\n".join(self._parts)
            + "\n</body>\n</html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the page, atomically."""
        with new_file(path) as draft:
            draft.write_text(self.html(), encoding="utf-8")


def _cell(tag: str, text: str, number: bool) -> str:
    style = ' class="number"' if number else ""
    return f"<{tag}{style}>{html.escape(text)}</{tag}>"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Write 12345 as 12,345, 3.14159 as 3.142, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if 0 < abs(value) < 1 else f"{value:.{max(0, 4 - len(str(int(abs(value)))))}f}"
