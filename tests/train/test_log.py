import json

import pytest

from yatsude.train.log import Reader, numbers, read_log


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_reader_gives_each_whole_line_once(tmp_path):
    path = tmp_path / "log.jsonl"
    with pytest.raises(FileNotFoundError):
        Reader(path).new()
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    reader = Reader(path)
    assert reader.new() == [{"step": 1}, {"step": 2}]
    assert reader.new() == []
    with path.open("a") as stream:
        stream.write('ep": 3}\n')
    assert reader.new() == [{"step": 3}]
    assert read_log(path) == [{"step": 1}, {"step": 2}, {"step": 3}]


def test_a_reader_begins_anew_when_a_resumed_run_has_rewritten_the_log(tmp_path):
    path, draft = tmp_path / "log.jsonl", tmp_path / "draft"
    write(path, [{"step": n} for n in range(5)])
    reader = Reader(path)
    assert len(reader.new()) == 5
    write(draft, [{"step": n} for n in range(3)])
    draft.replace(path)
    assert [line["step"] for line in reader.new()] == [0, 1, 2]


def test_of_a_long_log_the_end_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("yatsude.train.log.TAIL", 100)
    path = tmp_path / "log.jsonl"
    write(path, [{"step": n} for n in range(1000)])
    steps = [line["step"] for line in Reader(path).new()]
    assert steps[-1] == 999
    assert 1 < len(steps) < 10
    assert steps == list(range(steps[0], 1000))


def test_plain_numbers_of_a_line():
    step = {"step": 7, "loss": 1.5, "load": [], "machine": {"waiting": 0.0}, "said": "x"}
    assert numbers(step) == {"loss": 1.5, "machine/waiting": 0.0}
    assert numbers({**step, "bits_per_character": 2.0}) == {"validation/bits_per_character": 2.0}
