import itertools

from hypothesis import given
from hypothesis import strategies as st

from yatsude.engine.text import StopWatch


def shown(pieces, stops):
    watch, out = StopWatch(stops), ""
    for piece in pieces:
        out += watch.push(piece)
        if watch.stopped:
            return out
    return out + watch.flush()


def test_a_stop_text_over_token_borders_is_never_shown():
    watch = StopWatch(["終わり"])
    assert [watch.push(piece) for piece in ("これで終", "わ", "り。")] == ["これで", "", ""]
    assert watch.stopped


def test_what_only_looked_like_a_stop_text_is_given_back():
    watch = StopWatch(["終わり"])
    assert [watch.push(piece) for piece in ("終わ", "ら", "ない終")] == ["", "終わら", "ない"]
    assert watch.flush() == "終"


@given(
    st.text("abc", max_size=20),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 20), max_size=6),
)
def test_the_same_text_is_shown_however_it_arrives(text, stops, cuts):
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(borders)]
    assert shown(pieces, stops) == shown([text], stops) == shown(list(text), stops)
    if not any(stop in text for stop in stops):
        assert shown(pieces, stops) == text
