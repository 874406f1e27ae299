import json
import re
import shutil

import pytest

from yatsude import manifest
from yatsude.errors import DataError
from yatsude.evaluate.build import build
from yatsude.evaluate.measure import Inputs, measure
from yatsude.evaluate.settings import EvaluateSettings
from yatsude.text.ngram import fit_orders
from yatsude.tokenizer.build import build as build_tokenizer
from yatsude.tokenizer.settings import TokenizerSettings

from .conftest import rows, write_data, write_log, write_model

SETTINGS = EvaluateSettings(
    orders=(2, 3), window=64, router_tokens=256, samples=2, sample_tokens=8, chat_prompts=6, answer_tokens=8
)


def run(home, out, **more):
    return build(SETTINGS, home / "train" / "model", home / "data", home / "tokenizer", out, **more)


def test_a_whole_evaluation(home, tmp_path):
    train_log = write_log(home / "train", [5.0] * 30, [20.0, 8.0, 0.1])
    tune_log = write_log(home / "tune", [4.0] * 30, [20.0, 8.0, 2.0])
    summary = run(home, tmp_path / "out", train_log=train_log, tune_log=tune_log, chat_model=home / "tune" / "model")
    html = summary.report.read_text("utf-8")
    assert summary.ngrams.keys() == {2, 3}
    assert summary.passed == []
    assert [c.minute is not None for c in summary.crossings] == [True, True]
    assert summary.chat is not None
    for word in ("Kneser-Ney", "専門家の負荷", "対話の試験", "2-gram", "CC0-1.0", "メモリに置く", "PyTorch"):
        assert word in html
    assert html.count("<svg") == 10  # bars, scores, two losses, load twice, information twice, lift of two kinds
    assert not re.search(r'<script|src="http|href="http|@import|url\(http', html)


def test_a_cut_log_or_that_of_another_attempt_stays_out_of_the_report(home, tmp_path, capsys):
    model = tmp_path / "train" / "model"
    write_model(model, home / "tokenizer", tokens_seen=30 * 64)
    log = write_log(tmp_path / "train", [5.0] * 30, [20.0, 8.0, 0.1])
    places = (SETTINGS, model, home / "data", home / "tokenizer", tmp_path / "out")
    assert build(*places, train_log=log).crossings
    write_log(tmp_path / "train", [5.0] * 20, [20.0, 8.0])
    assert not build(*places, train_log=log).crossings
    assert f"{log} is not the whole log of the run that made {model}" in capsys.readouterr().err


def test_figures_and_manifest(home, tmp_path):
    summary = run(home, tmp_path / "out", chat_model=home / "tune" / "model")
    page = json.loads((tmp_path / "out" / "figures.json").read_text("utf-8"))
    assert page["held_out_bits_per_character"] == pytest.approx(summary.bits_per_character, abs=1e-4)
    assert page["3-gram_bits_per_character"] == pytest.approx(summary.ngrams[3], abs=1e-4)
    assert page["answers_that_ended"].endswith("of 6")
    assert page["results"]["chat"]["answers"][0]["task"] == "to_japanese"
    found = manifest.read(tmp_path / "out", "evaluate")
    manifest.check(tmp_path / "out", found)
    assert (tmp_path / "out" / "router.jsonl").read_text("utf-8").count("\n") > 10
    assert [entry.stage for entry in found.inputs] == ["train", "data", "tokenizer", "tune"]
    assert [licence.source for licence in found.licences] == ["mine"]


def test_the_curve_is_held_against_the_ngrams_of_validation_text(home, tmp_path):
    train_log = write_log(home / "train", [5.0] * 30, [20.0, 8.0, 0.1], documents=4)
    summary = run(home, tmp_path / "out", train_log=train_log)
    models = fit_orders([text for text, _, _ in rows(0, 120)], SETTINGS.orders)
    validation = [text for text, _, _ in rows(300, 310)][:4]
    for crossed in summary.crossings:
        assert crossed.level == pytest.approx(models[crossed.order].bits_per_character(validation))
    for order, bits in summary.ngrams.items():
        held = [text for text, _, _ in rows(200, 230)]
        assert bits == pytest.approx(models[order].bits_per_character(held))


def test_folders_of_an_earlier_version_say_what_to_run(home, tmp_path):
    write_data(tmp_path / "data", rows(200, 230))
    shutil.rmtree(tmp_path / "data" / "validation")
    with pytest.raises(DataError, match=r"validation; run 'yatsude data' again"):
        measure(SETTINGS, Inputs(model=home / "train" / "model", data=tmp_path / "data", tokens=home / "tokenizer"))


def test_a_base_model_alone(home, tmp_path):
    summary = run(home, tmp_path / "out")
    html = summary.report.read_text("utf-8")
    assert summary.chat is None
    assert summary.crossings == ()
    assert "対話の試験" not in html
    assert "学習の歩み" not in html


def test_a_failed_evaluation_leaves_the_old_report(home, tmp_path):
    run(home, tmp_path / "out")
    before = (tmp_path / "out" / "report.html").read_bytes()
    with pytest.raises(DataError, match="no log at"):
        run(home, tmp_path / "out", train_log=tmp_path / "absent" / "log.jsonl")
    assert (tmp_path / "out" / "report.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_that_was_altered_at_equal_size_is_told_before_anything_is_measured(home, tmp_path):
    shutil.copytree(home / "data", tmp_path / "data")
    path = tmp_path / "data" / "held_out" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"held_out/part-00000\.parquet is not what was written .* 'yatsude data' again"
    ):
        build(SETTINGS, home / "train" / "model", tmp_path / "data", home / "tokenizer", tmp_path / "out")


def test_folders_that_do_not_belong_together_are_refused(home, tmp_path):
    write_data(tmp_path / "data", rows(0, 60))
    build_tokenizer(TokenizerSettings(vocab_size=300), tmp_path / "data", tmp_path / "tokenizer")
    model = home / "train" / "model"
    with pytest.raises(DataError, match="has another tokenizer than"):
        build(SETTINGS, model, home / "data", tmp_path / "tokenizer", tmp_path / "out")
    with pytest.raises(DataError, match="was made from other text than"):
        build(SETTINGS, model, tmp_path / "data", home / "tokenizer", tmp_path / "out")
