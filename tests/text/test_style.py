import pytest
from hypothesis import given
from hypothesis import strategies as st

from yatsude.text.style import PLAIN, POLITE, sentence_style, style


@pytest.mark.parametrize(
    "sentence",
    [
        "明日は東京へ行きます。",
        "昨日は雨でした。",
        "行きませんでした！",
        "行きましょうか？",
        "そうですよね。",
        "本を貸してください。",
        "いらっしゃいませ。",
        "「もう寝ます」",
        "結果を表示します",  # no mark: a polite ending speaks for itself
        "高いですけど。",
        "本当ですか？！",
    ],
)
def test_polite(sentence):
    assert sentence_style(sentence) == POLITE


@pytest.mark.parametrize(
    "sentence",
    [
        "明日は東京へ行く。",
        "昨日は雨だった。",
        "これは本である。",
        "山が高い。",
        "行かないよ。",
        "雨だね。",
        "行こうか。",
        "彼は人をだます。",
        "友だちを励ました。",
        "何を食べているの？",
        "早くしろ！",
        "そんなことはあるまい。",
    ],
)
def test_plain(sentence):
    assert sentence_style(sentence) == PLAIN


@pytest.mark.parametrize("sentence", ["", "雨", "扱い", "書式の違い", "ありがとう。", "座りなさい。", "はい。", "OK."])
def test_undecided(sentence):
    assert sentence_style(sentence) is None


def test_a_text_has_the_style_of_nearly_all_its_sentences():
    polite, plain = "雨です。", "雨が降る。"
    assert style(polite * 4 + plain) == POLITE
    assert style(polite * 3 + plain) is None
    assert style(polite + plain * 4) == PLAIN
    assert style("名前\n\n書式の違い\n" + polite) == POLITE
    assert style("「" + polite + "」と言った。") is None
    assert style("名前") is None
    assert style("") is None


@given(st.text())
def test_any_text_has_one_of_three_answers(text):
    assert style(text) in {POLITE, PLAIN, None}
    assert style(text + "\n\n" + text) == style(text)
