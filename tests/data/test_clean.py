from collections import Counter

from yatsude.data.clean import clean
from yatsude.data.documents import Document
from yatsude.data.settings import DataSettings


def test_what_stays_and_why_the_rest_goes():
    texts = ["  ﾃﾞｰﾀです。\r\n", "データです。", "短い", "English only.", "中文漢字句子", "あ" * 21, "よい文です。"]
    dropped: Counter[str] = Counter()
    rows = [Document(id=str(i), text=text, source="s", domain="d", english="e") for i, text in enumerate(texts)]
    kept = list(clean(rows, DataSettings(min_characters=4, max_characters=20), set(), dropped))
    assert [(row.id, row.text, row.english) for row in kept] == [("0", "データです。", "e"), ("6", "よい文です。", "e")]
    assert dropped == {"duplicate": 1, "too_short": 1, "not_japanese": 2, "too_long": 1}


def test_duplicates_are_found_across_sources():
    seen: set[bytes] = set()
    one = [Document(id="1", text="同じ文です。", source="a", domain="d")]
    assert len(list(clean(one, DataSettings(), seen, Counter()))) == 1
    assert list(clean(one, DataSettings(), seen, Counter())) == []
