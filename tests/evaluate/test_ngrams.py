import pytest

from yatsude.errors import DataError
from yatsude.evaluate import ngrams
from yatsude.evaluate.results import total
from yatsude.text.ngram import fit_orders

from .conftest import rows, write_data


@pytest.fixture
def data(tmp_path):
    write_data(tmp_path / "data", rows(200, 210), rows(300, 310))
    return tmp_path / "data"


def ask(data, scored=4, documents=None):
    held = rows(200, 210)[:documents]
    validation = [text for text, _, _ in rows(300, 310)][:scored]
    return ngrams.measure(data, (2, 3), [r[0] for r in held], [r[1] for r in held], validation)


def test_figures_are_those_of_the_models(data):
    held, validation = ([text for text, _, _ in rows(*numbers)] for numbers in ((200, 210), (300, 310)))
    models = fit_orders([text for text, _, _ in rows(0, 120)], (2, 3))
    for found in ask(data):
        assert total(found.kinds.values()).per_character == pytest.approx(models[found.order].bits_per_character(held))
        assert found.kinds["technical"].bits == pytest.approx(models[found.order].bits(held[10:]))
        assert found.validation.bits == pytest.approx(models[found.order].bits(validation[:4]))
        assert found.validation.characters == sum(map(len, validation[:4]))


def test_without_a_training_run_no_validation_text_is_scored(data):
    assert [(found.validation.bits, found.validation.characters) for found in ask(data, scored=0)] == [(0, 0)] * 2


def test_a_second_time_nothing_is_fitted(data, monkeypatch):
    first = ask(data)
    monkeypatch.setattr(ngrams, "fit_orders", lambda *_: pytest.fail("fitted again"))
    assert ask(data) == first


@pytest.mark.parametrize("change", [{"scored": 5}, {"documents": 12}])
def test_other_documents_are_other_figures(data, change):
    assert ask(data) != ask(data, **change)


def test_a_damaged_store_is_fitted_again(data):
    first = ask(data)
    ngrams.store(data).write_text('{"half')
    assert ask(data) == first


def test_figures_of_an_earlier_version_are_fitted_again(data):
    first = ask(data)
    path = ngrams.store(data)
    path.write_text(path.read_text().replace('"validation"', '"early"'))
    assert ask(data) == first


def test_a_store_that_cannot_be_written_is_said(data, monkeypatch, capsys):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ngrams, "new_file", refuse)
    assert ask(data)
    assert "cannot be written" in capsys.readouterr().err


def test_an_error_in_the_background_is_raised_in_front(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json"):
        ngrams.background(lambda: ask(tmp_path)).result()
