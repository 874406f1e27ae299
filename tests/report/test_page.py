import re
from html.parser import HTMLParser

import pytest

from yatsude.report.page import Page

VOID = {"meta"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed wrongly; collects tags and what refers elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.references = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.references += [value for name, value in attrs if name in {"src", "href", "xlink:href", "srcset"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.references += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def full_page():
    page = Page("記録 <1>", lead="前書き & 注")
    page.figures({"文字": 12345, "時間": "10 分"})
    page.section("節")
    page.text("本文 <script>alert(1)</script>")
    page.table(["名前", "値", "注"], [["a<b", 3.14159, None], ["c", 2, "x"], ["d", None, "y"]], "表 1")
    page.picture('<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>', "図 1")
    page.sample("一行目\n二行目", "入力")
    return page


def test_page_is_whole_and_asks_for_nothing():
    text = full_page().html()
    parsed = Balanced(text)
    assert {"h1", "h2", "p", "table", "figure", "blockquote", "dl", "svg", "style"} <= set(parsed.seen)
    assert "script" not in parsed.seen
    assert parsed.references == []
    assert not re.search(r"url\(|@import|http", text)
    assert '<html lang="ja">' in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_text_is_escaped():
    text = full_page().html()
    assert "記録 &lt;1&gt;" in text
    assert "前書き &amp; 注" in text
    assert "&lt;script&gt;" in text
    assert "a&lt;b" in text
    assert "一行目\n二行目" in text


def test_columns_of_numbers_stand_to_the_right():
    text = full_page().html()
    assert '<th class="number">値</th><th>注</th>' in text
    assert '<tr><td>a&lt;b</td><td class="number">3.142</td><td>–</td></tr>' in text
    assert '<td class="number">–</td><td>y</td>' in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12345, "12,345"),
        (1234.5, "1,234"),
        (3.14159, "3.142"),
        (0.00012345, "0.0001234"),
        (0.0, "0.000"),
        (99.9, "99.90"),
        (True, "True"),
    ],
)
def test_numbers_are_shown_to_four_digits(value, shown):
    page = Page("x")
    page.figures({"n": value})
    assert f"<dd>{shown}</dd>" in page.html()


def test_a_table_without_rows_is_a_head():
    page = Page("x")
    page.table(["a", "b"], [])
    assert "<th>a</th><th>b</th>" in page.html()


def test_page_is_written_whole(tmp_path):
    full_page().write(tmp_path / "deep" / "report.html")
    assert (tmp_path / "deep" / "report.html").read_text(encoding="utf-8") == full_page().html()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]
