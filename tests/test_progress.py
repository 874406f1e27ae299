import pytest

from yatsude import progress
from yatsude.progress import bar, say


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    return lines


def test_say_goes_to_standard_error_as_it_is(capsys):
    say("[bold]not markup[/bold] 日本語 " + "x" * 300)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "[bold]not markup[/bold] 日本語 " + "x" * 300 + "\n"


def test_without_a_terminal_a_line_comes_now_and_then(clock, said):
    with bar("reading", 100, "files") as task:
        task.advance(10)
        clock[0] += 20
        task.advance(10, "loss 3")
        task.advance(10)
    assert said == ["reading 20 %, 1 files/s, 80 s left  loss 3"]


def test_what_was_done_before_is_not_taken_for_speed(clock, said):
    with bar("training", 100, "steps") as task:
        task.skip(60)
        clock[0] += 20
        task.advance(20)
    assert said == ["training 80 %, 1 steps/s, 20 s left  "]


def test_an_unknown_total_has_no_share_and_no_end(clock, said):
    with bar("reading") as task:
        clock[0] += 20
        task.advance(2000)
    assert said == ["reading, 100 items/s  "]


def test_on_a_terminal_the_bar_counts(monkeypatch, clock):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    for total in (10, None):
        with bar("reading", total) as task:
            task.skip(3)
            clock[0] += 1
            task.advance(4, "note")
            shown = task._progress.tasks[0]
            assert shown.completed == 7
            assert shown.fields == {"rate": "4 items/s", "note": "note"}
