import pytest

from yatsude.text.scripts import has_kana, japanese_share


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        (" \n\u3000", 0.0),
        ("今日は、晴れ。", 1.0),
        ("ﾊﾛｰ　ＡＢＣ１２３！", 1.0),
        ("abc", 0.0),
        ("猫 cat。", 0.4),
        ("𠮷野家", 1.0),
        ("한국어", 0.0),
    ],
)
def test_share_of_japanese_characters(text, share):
    assert japanese_share(text) == pytest.approx(share)


def test_kana():
    assert has_kana("漢字と仮名")
    assert has_kana("カタカナ")
    assert has_kana("ｶﾀｶﾅ")
    assert not has_kana("中文、漢字。")
