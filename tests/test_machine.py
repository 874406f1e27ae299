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
