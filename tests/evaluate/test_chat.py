import pytest

from yatsude.engine.load import load
from yatsude.engine.settings import EngineSettings
from yatsude.errors import DataError
from yatsude.evaluate.chat import ask, judge, prompts, repeats
from yatsude.evaluate.results import Answer
from yatsude.evaluate.settings import EvaluateSettings
from yatsude.spec.tasks import TASKS

from .conftest import rows, write_data


def answer(text, **changes):
    plain = {"task": "to_japanese", "prompt": "", "text": text, "reference": "", "ended": True, "repeats": 1}
    return Answer(**{**plain, "japanese_asked": True, "japanese": 1.0, **changes})


def test_prompts_use_the_words_of_the_tasks(home):
    found = prompts(home / "data", 20)
    assert [p.task for p in found[:4]] == ["to_japanese", "to_english", "continue", "to_japanese"]
    assert len(found) == len({p.text for p in found}) == 20
    held = {text: english for text, _, english in rows(200, 230)}
    for p in found:
        asked = p.text.removeprefix(TASKS[p.task].instruction + "\n")
        assert asked != p.text
        if p.task == "to_japanese":
            assert held[p.reference] == asked
        elif p.task == "to_english":
            assert held[asked] == p.reference
        else:
            assert asked + p.reference in held


def test_without_translations_all_prompts_continue(tmp_path):
    write_data(tmp_path, [(text, kind, None) for text, kind, _ in rows(200, 210)])
    assert {p.task for p in prompts(tmp_path, 20)} == {"continue"}
    write_data(tmp_path, [("短い", "dialogue", None)])
    with pytest.raises(DataError, match="no sentence of 8 to 120 characters"):
        prompts(tmp_path, 20)


def test_repeats_counts_the_most_frequent_four_gram():
    assert repeats([7] * 7) == 4
    assert repeats([1, 2, 3]) == 0
    assert repeats([1, 2, 3, 4] * 3) == 3


def test_the_three_bars():
    good = judge([answer("はい。"), answer("Yes.", task="to_english", japanese_asked=False, japanese=0.0)])
    assert good.passed == {"japanese": True, "ended": True, "repeats": True}
    assert good.japanese == 1.0
    bad = judge([answer("はい。"), answer("No way.", japanese=0.0, ended=False, repeats=4)])
    assert bad.passed == {"japanese": False, "ended": False, "repeats": False}
    assert bad.japanese == pytest.approx(3 / 9)
    assert not judge([answer("", japanese=0.0)]).passed["japanese"]


def test_a_model_is_asked(home):
    engine = load(home / "tune" / "model", EngineSettings(precision="fp32"))
    found = ask(engine, prompts(home / "data", 4), EvaluateSettings(answer_tokens=8))
    assert len(found.answers) == 4
    assert [a.japanese_asked for a in found.answers] == [True, False, True, True]
    assert found.ended == sum(a.ended for a in found.answers)
