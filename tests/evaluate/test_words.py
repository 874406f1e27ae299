import pytest

from yatsude.evaluate.information import Finding, Information
from yatsude.evaluate.results import Answer, Bits, Crossing, NgramBits, Quality
from yatsude.evaluate.words import answer_verdict, crossing_text, information_verdict, kind_name, quality_verdict


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


@pytest.mark.parametrize(
    ("bits", "p", "said", "told"),
    [
        (0.5, 0.005, "偶然を超えて分けています", "beyond chance: a mean"),
        (0.03, 0.005, "ただしわずかに分けています", "beyond chance, but faintly: "),
        (0.5, 0.05, "偶然を超えては言えません", "Experts do not tell the kind of text beyond chance: "),
    ],
)
def test_whether_experts_specialise_goes_by_p_and_how_much_by_the_bits(bits, p, said, told):
    mean = Finding(bits=bits, chance=0.01, chance_95=0.02, p=p)
    found = Information(units={"law": 4, "talk": 4}, most=1.0, layers=[mean], mean=mean, shuffles=200)
    japanese, english = information_verdict("kind", found)
    assert said in japanese
    assert told in english
    for sentence in (japanese, english):
        assert f"p = {p:.3f}" in sentence
        assert f"{100 * bits:.1f} %" in sentence


def test_nothing_to_compare_is_said():
    japanese, english = information_verdict("style", None)
    assert "敬体と常体の違いは比べられません" in japanese
    assert "Nothing to compare for polite or plain style" in english
