r"""A manual page in roff's man dialect as plain Japanese prose.

Headings and paragraphs are kept; macros, font changes, code blocks and tables go, and so do paragraphs without any
kana (untranslated English, synopses) and sections that are the same in every page (authors, colophon).

    .SH オプション               オプション
    .TP                    ->    -a: すべて表示する
    \fB\-a\fR
    すべて表示する
"""

import re

from yatsude.text.scripts import JAPANESE, has_kana

__all__ = ["is_man", "prose"]

_FONTS = {"B", "I", "SM", "SB"}
_ALTERNATING = {"BR", "BI", "IR", "IB", "RB", "RI"}
_BREAKS = {"PP", "LP", "P", "sp", "br", "HP", "RS", "RE", "Sp", "in", "ti"}
_BLOCKS = {"nf": "fi", "EX": "EE", "Vb": "Ve", "TS": "TE", "DS": "DE", "Ds": "De", "SY": "YS", "CW": "CN"}
_SKIPPED = re.compile(
    "この文書について|この man ?ページについて|関連項目|参照|属性|著者|作者|作成者|翻訳者?|訳者|著作権|履歴|謝辞|書式"
    "|COLOPHON|SYNOPSIS|SEE ALSO|AUTHORS?|TRANSLATORS?|COPYRIGHT"
)
_GLYPHS = {
    "aq": "'", "bu": "・", "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "dq": '"', "em": "—", "en": "–", "hy": "-",
    "co": "©", "ha": "^", "ti": "~", "rs": "\\", "+-": "±", "**": "*", "mi": "-", "mu": "×", "pl": "+", "sl": "/",
    "de": "°", "la": "⟨", "ra": "⟩", "eq": "=", "ga": "`", "aa": "´", "<=": "≤", ">=": "≥", "->": "→", "*p": "π",
}  # fmt: skip
_STRINGS = {
    "lq": "“", "rq": "”", "Lq": "“", "Rq": "”", 'L"': "“", 'R"': "”", "Aq": "'", "aq": "'", "C`": "“", "C'": "”",
}  # fmt: skip
_PLAIN = {"-": "-", "e": "\\", "\\": "\\", " ": " ", "~": " ", "0": " ", "t": " ", "'": "'", "`": "`", ".": "."}
_ESCAPE = re.compile(
    r"\\(?:(?P<glyph>\((?P<two>..)|\[(?P<long>[^\]]*)\])"
    r"|\*(?:\((?P<string>..)|\[[^\]]*\]|.)"
    r"|f(?:\(..|\[[^\]]*\]|.)|s(?:[+-]?\d|\([+-]?..|\[[^\]]*\])|n(?:[+-]?\(..|[+-]?\[[^\]]*\]|[+-]?.)"
    r"|[hwvDobxNlLR]'[^']*'|[mFkgz](?:\(..|\[[^\]]*\]|.)"
    r"|(?P<plain>.))",
)
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|(\S+)')
_GAP = re.compile(rf"(?<=[{JAPANESE}]) +(?=[{JAPANESE}])")


def is_man(source: str) -> bool:
    """Whether the page is in the man dialect (and not BSD's mdoc, nor a mere pointer to another page)."""
    return re.search(r"^\.\s*TH\b", source, re.M) is not None


def prose(source: str) -> str:
    """Plain text of a page: a heading stands after an empty line, every paragraph on a line; "" if nothing is left."""
    page = _Page()
    for line in _lines(source):
        page.read(line)
    page.finish()
    return "\n\n".join(section for section in page.sections if section)


class _Page:
    """The page so far: finished sections, and the section, paragraph and tag that are being filled."""

    def __init__(self) -> None:
        self.sections: list[str] = []
        self._heading, self._paragraphs = "", list[str]()
        self._words, self._tag = "", ""
        self._until: str | None = None
        self._next: str | None = None
        """What the next line is, after a bare .SH or .TP: "heading" or "tag"."""

    def read(self, line: str) -> None:
        """Take the next line."""
        if self._until is not None:
            name, _ = _macro(line)
            self._until = None if name == self._until else self._until
        elif line[:1] in (".", "'"):
            self._command(*_macro(line))
        elif not line.strip():
            self._close()
        else:
            self._text(line)

    def finish(self, heading: str = "") -> None:
        """Close the section and open the next one."""
        self._close()
        if self._paragraphs and not _SKIPPED.fullmatch(self._heading):
            self.sections.append("\n".join([self._heading, *self._paragraphs]).strip())
        self._heading, self._paragraphs, self._next = heading, [], None

    def _command(self, name: str, arguments: list[str]) -> None:
        if name in ("SH", "SS"):
            self.finish(_plain(" ".join(arguments)).strip())
            self._next = None if arguments else "heading"
        elif name in ("TP", "TQ"):
            self._close()
            self._next = "tag"
        elif name == "IP":
            self._close()
            self._tag = _plain(arguments[0]).strip() if arguments else ""
        elif name in _FONTS:
            self._text(" ".join(arguments)) if arguments else None
        elif name in _ALTERNATING:
            self._text("".join(arguments))
        elif name in ("UR", "MT") and arguments:
            self._text(arguments[0])
        elif name in _BLOCKS:
            self._close()
            self._until = _BLOCKS[name]
        elif name in _BREAKS:
            self._close()

    def _text(self, line: str) -> None:
        glued = line.endswith("\\c")
        words = _plain(line)
        if self._next == "heading":
            self._heading, self._next = words.strip(), None
        elif self._next == "tag":
            self._tag = (self._tag + words).strip()
            self._next = "tag" if glued else None
            if "  " in self._tag:  # help2man writes a wide tag and the beginning of its text on one line
                self._tag, self._words = "", re.sub("  +", ": ", self._tag) + " "
        else:
            self._words += words if glued else words + " "

    def _close(self) -> None:
        text = _GAP.sub("", re.sub(r"[ \t]+", " ", self._words)).strip()
        if self._tag in ("・", "*", "-", "o", "•"):
            text = text and f"・{text}"
        elif self._tag and text:
            text = f"{self._tag}: {text}"
        elif self._tag:
            text = self._tag
        if text and has_kana(text):
            self._paragraphs.append(text)
        self._words, self._tag, self._next = "", "", None


def _lines(source: str) -> list[str]:
    """Lines without comments, definitions and the branches that a screen does not show."""
    kept: list[str] = []
    until = ""
    depth = 0
    for line in source.replace("\\\n", "").split("\n"):
        name, _ = _macro(line)
        if until:
            until = "" if line.startswith(until) else until
            continue
        if depth:
            depth += line.count("\\{") - line.count("\\}")
            continue
        if name in ("de", "de1", "am", "ig"):
            until = ".."
        elif name in ("if", "ie", "el", "while"):
            depth = max(0, line.count("\\{") - line.count("\\}"))
            match = re.match(r"[.']\s*i[fe]\s+n\s+(.*)", line)
            if match and not depth:
                kept.append(match[1])
        elif not re.match(r"[.']\s*(\\\"|$)", line):
            kept.append(re.sub(r'\\".*', "", line))
    return kept


def _macro(line: str) -> tuple[str, list[str]]:
    """Name and arguments of a command line; ("", []) for text."""
    if line[:1] not in (".", "'"):
        return "", []
    name, _, rest = line[1:].lstrip().partition(" ")
    return name, [(quoted or bare).replace('""', '"') for quoted, bare in _ARGUMENT.findall(rest)]


def _plain(text: str) -> str:
    return _ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    if match["glyph"]:
        code = match["two"] or match["long"]
        if re.fullmatch("u[0-9A-F]{4,5}", code):
            return chr(int(code[1:], 16))
        return _GLYPHS.get(code, "")
    if match["string"]:
        return _STRINGS.get(match["string"], "")
    return _PLAIN.get(match["plain"] or "", "")
