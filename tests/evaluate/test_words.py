from yatsude.evaluate.results import Answer, Bits, Crossing, NgramBits, Quality
from yatsude.evaluate.words import answer_verdict, crossing_text, kind_name, quality_verdict


def quality(mine):
    ngrams = tuple(
        NgramBits(order=o, kinds={"own": Bits(b, 100)}, validation=Bits(0, 0)) for o, b in ((3, 360), (4, 320))
    )
    return Quality(model={"own": Bits(mine, 100)}, ngrams=ngrams, documents=1)


def test_the_verdict_names_what_is_beaten_and_what_is_not():
    japanese, english = quality_verdict(quality(340))
    assert "3.400" in japanese
    assert "3-gram (+0.200) より良い" in japanese
    assert "4-gram (-0.200) にはまだ届いていません" in japanese
    assert "better than 3-gram (+0.200)" in english
    assert "has not reached 4-gram (-0.200)" in english
    assert quality(340).passed == [3]
    assert "届いて" not in quality_verdict(quality(300))[0]
    assert "better than" not in quality_verdict(quality(400))[1]


def test_crossings_in_words():
    assert crossing_text(Crossing(order=3, level=3, minute=None)).startswith("到達せず")
    assert "2.3 分" in crossing_text(Crossing(order=3, level=3, minute=2.34))
    assert "より前" in crossing_text(Crossing(order=3, level=3, minute=2.34, before_first=True))


def test_every_fault_of_an_answer_is_named():
    plain = {"task": "continue", "prompt": "", "reference": "", "ended": True, "repeats": 1, "japanese_asked": True}
    assert answer_verdict(Answer(**plain, text="はい", japanese=1.0)) == "○"
    english = {**plain, "japanese_asked": False}
    assert answer_verdict(Answer(**english, text="Yes", japanese=0.0)) == "○"
    assert answer_verdict(Answer(**english, text="はい", japanese=1.0)) == "△ 英語でない not English"
    assert "空" in answer_verdict(Answer(**plain, text=" ", japanese=0.0))
    bad = answer_verdict(Answer(**{**plain, "ended": False, "repeats": 5}, text="はい yes", japanese=0.4))
    assert all(word in bad for word in ("40 %", "終わらない", "5 回"))


def test_own_kinds_keep_their_names():
    assert kind_name("novels") == "novels"
    assert kind_name("dialogue").startswith("対話")
