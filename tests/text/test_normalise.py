import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yatsude.text.normalise import normalise


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ｶﾞｷﾞｸﾞ｡｢ｱ｣､･", "ガギグ。「ア」、・"),
        ("ﾞ", "゛"),
        ("か\u3099", "が"),
        ("ハ\u309a", "パ"),
        ("a\r\nb\rc\u2028d\x85e", "a\nb\nc\nd\ne"),
        ("ゼ\u200bロ\ufeff幅\u202e", "ゼロ幅"),
        ("a\x00\x07\tb", "a\tb"),
        ("日\u200d本", "日本"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
    ],
)
def test_what_changes(before, after):
    assert normalise(before) == after


@pytest.mark.parametrize(
    "text", ["第1項①", "CO₂ x² 10㎡ ½", "㈱ ㍻31年", "～〜…", "\ufa19\u9ad9﨑", "Ａ　Ｂ", "葛\U000e0100", "か\u309a"]
)
def test_what_carries_meaning_stays(text):
    assert normalise(text) == text


def test_a_person_s_name_survives_where_nfc_would_change_it():
    assert unicodedata.normalize("NFC", "\ufa19") != "\ufa19"
    assert normalise("\ufa19田") == "\ufa19田"


@given(st.text())
def test_a_second_pass_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)
