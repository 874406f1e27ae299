import pytest

from yatsude.errors import DataError
from yatsude.evaluate import ngrams
from yatsude.evaluate.results import total
from yatsude.text.ngram import fit_orders

from .conftest import rows, write_data


@pytest.fixture
def data(tmp_path):
    write_data(tmp_path / "data", rows(200, 210))
    return tmp_path / "data"


def ask(data, early=4, documents=None):
    held = rows(200, 210)
    return ngrams.measure(data, (2, 3), [r[0] for r in held], [r[1] for r in held], documents, early)


def test_figures_are_those_of_the_models(data):
    held = [text for text, _, _ in rows(200, 210)]
    models = fit_orders([text for text, _, _ in rows(0, 120)], (2, 3))
    for found in ask(data):
        assert total(found.kinds.values()).per_character == pytest.approx(models[found.order].bits_per_character(held))
        assert found.kinds["technical"].bits == pytest.approx(models[found.order].bits(held[10:]))
        assert found.early.bits == pytest.approx(models[found.order].bits(held[:4]))
        assert found.early.characters == sum(map(len, held[:4]))


def test_a_second_time_nothing_is_fitted(data, monkeypatch):
    first = ask(data)
    monkeypatch.setattr(ngrams, "fit_orders", lambda *_: pytest.fail("fitted again"))
    assert ask(data) == first


@pytest.mark.parametrize("change", [{"early": 5}, {"documents": 12}])
def test_other_documents_are_other_figures(data, change):
    assert ask(data) != ask(data, **change)


def test_a_damaged_store_is_fitted_again(data):
    first = ask(data)
    ngrams.store(data).write_text('{"half')
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
