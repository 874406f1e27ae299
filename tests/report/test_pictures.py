import re
import subprocess
import sys
import warnings
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from yatsude.report.pictures import bars, crossing, heat_map, lines

pytest.importorskip("matplotlib")

X = np.linspace(0, 10, 30)
SERIES = {"混合": (X, 6 - 0.3 * X), "密": (X, 6 - 0.2 * X)}
LEVELS = {"3-gram": 4.5, "5-gram": 2.0}


@pytest.fixture
def pictures():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [
            lines(SERIES, x_label="分", y_label="ビット / 文字", levels=LEVELS),
            heat_map([[0.5, 1.5], [1.0, 1.0]], rows=["一層", "二層"], columns=["0", "1"], x_label="専門家", centre=1.0),
            heat_map(
                np.arange(80 * 64).reshape(80, 64), rows=[""] * 80, columns=[str(n) for n in range(64)], centre=1.0
            ),
            bars({"例文": 1.9, "全体 <&>": 2.1}, emphasis=["例文"]),
        ]


def words(svg):
    return [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_pictures_are_svg_with_text_and_page_colours(pictures):
    for svg in pictures:
        assert ET.fromstring(svg).tag.endswith("svg")
        assert "#0101" not in svg
        assert "#0505" not in svg
        assert "var(--" in svg
        assert "DejaVu" not in svg
        assert not re.search(r'(?:href|src)="(?!#|data:)', svg)
    assert {"混合", "密", "3-gram", "5-gram", "分", "ビット / 文字"} <= set(words(pictures[0]))
    assert {"一層", "二層", "専門家", "0.50", "1.50"} <= set(words(pictures[1]))
    assert {"例文", "全体 <&>", "1.900"} <= set(words(pictures[3]))


def test_ids_of_two_pictures_differ(pictures):
    names = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in pictures]
    assert all(names)
    for number, own in enumerate(names):
        assert not own & set().union(*names[:number])
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', pictures[number])) <= own


def test_the_same_numbers_give_the_same_bytes(pictures):
    assert bars({"例文": 1.9, "全体 <&>": 2.1}, emphasis=["例文"]) == pictures[3]


def test_many_cells_become_one_bitmap(pictures):
    assert "data:image/png;base64" in pictures[2]
    assert len(pictures[2]) < 200_000


def test_crossings_are_marked_at_their_x(pictures):
    assert {"5", "7.5"} <= set(words(pictures[0]))


def test_levels_outside_the_range_are_left_out():
    shown = words(lines(SERIES, x_label="x", y_label="y", levels=LEVELS, y_range=(3, 6)))
    assert "3-gram" in shown
    assert "5-gram" not in shown


@pytest.mark.parametrize(
    ("y", "level", "x"),
    [([4, 2, 3, 1], 3, 0.5), ([4, 3, 3], 3, 1.0), ([4, 2, 1], 1.5, 1.5), ([2, 1], 3, None), ([5, 4], 3, None)],
)
def test_crossing_is_the_first_time_at_the_level(y, level, x):
    assert crossing(range(len(y)), y, level) == x


def test_importing_pictures_does_not_import_matplotlib():
    code = "import sys, yatsude.report.pictures, yatsude.report.page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_marks_are_ticks_and_the_number_stands_beyond_them():
    plain, marked = bars({"層 1": 0.2, "層 2": 0.1}), bars({"層 1": 0.2, "層 2": 0.1}, marks={"層 1": 0.4})
    assert plain != marked
    assert marked.count("<path") == plain.count("<path") + 1
    assert {"0.200", "0.100"} <= set(words(marked))


def test_two_heat_maps_of_one_reach_have_the_same_colours():
    def colours(table, **more):
        svg = heat_map(table, rows=["一"], columns=["0", "1"], centre=1.0, **more)
        return re.findall(r"fill: (#[0-9a-f]{6})", svg)

    assert colours([[0.5, 1.5]])[:2] == colours([[0.0, 2.0]])[:2]
    assert colours([[0.5, 1.5]], reach=1.0)[:2] != colours([[0.0, 2.0]], reach=1.0)[:2]
