from yatsude.engine.load import load
from yatsude.engine.settings import EngineSettings
from yatsude.evaluate.heldout import parts
from yatsude.evaluate.samples import continue_beginnings, spread
from yatsude.evaluate.settings import EvaluateSettings

from .conftest import rows


def test_samples_are_held_out_and_repeatable(home):
    engine = load(home / "train" / "model", EngineSettings(precision="fp32"))
    settings = EvaluateSettings(samples=3, sample_tokens=12)
    kinds = parts(home / "tokenizer" / "held_out")
    found = continue_beginnings(engine, kinds, settings)
    assert [sample.kind for sample in found] == ["dialogue", "dialogue", "technical"]
    texts = [text for text, _, _ in rows(200, 230)]
    for sample in found:
        assert any(text.startswith(sample.beginning + sample.truth.removesuffix("…")) for text in texts)
    assert continue_beginnings(engine, kinds, settings) == found


def test_spread_is_even_and_never_too_many():
    assert list(spread(10, 2)) == [2, 7]
    assert list(spread(2, 5)) == [0, 1]
    assert list(spread(0, 5)) == []
