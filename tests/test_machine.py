import os

from yatsude import machine


def test_cores_are_those_this_process_may_use():
    assert machine.cores() == len(os.sched_getaffinity(0))


def test_memory_is_what_the_system_says_or_nothing(monkeypatch):
    assert machine.memory() > 1 << 28

    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", unknown)
    assert machine.memory() == 0


def test_what_a_process_holds_grows_with_what_it_takes():
    before, peak = machine.resident()
    block = b"x" * (512 << 20)  # far more than was freed before and is kept for the next who asks
    now, most = machine.resident()
    assert now - before > 400 << 20
    assert most >= now
    assert peak >= before
    del block


def test_what_the_system_does_not_say_is_nothing(monkeypatch):
    monkeypatch.setattr(machine, "_text", lambda path: "")
    assert machine.resident() == (0, 0)
    assert machine.processor()
