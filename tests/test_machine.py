import os
import subprocess
import sys

from yatsude import machine


def test_cores_are_those_this_process_may_use():
    assert machine.cores() == len(os.sched_getaffinity(0))


def test_memory_is_what_the_system_says_or_nothing(monkeypatch):
    assert machine.memory() > 1 << 28

    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", unknown)
    assert machine.memory() == 0


TAKES = """
from yatsude import machine

before, peak = machine.resident()
block = b"x" * (64 << 20)
now, most = machine.resident()
print(before, peak, now, most)
"""


def test_what_a_process_holds_grows_with_what_it_takes():
    """In a process of its own: this one may give back at any time what earlier tests have left."""
    told = subprocess.run([sys.executable, "-c", TAKES], capture_output=True, text=True, check=True)
    before, peak, now, most = map(int, told.stdout.split())
    assert 60 << 20 < now - before < 80 << 20
    assert most >= now
    assert peak >= before


def test_what_the_system_does_not_say_is_nothing(monkeypatch):
    monkeypatch.setattr(machine, "_text", lambda path: "")
    assert machine.resident() == (0, 0)
    assert machine.processor()
