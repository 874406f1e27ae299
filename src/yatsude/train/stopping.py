"""Ctrl-C, a polite kill and a batch system's warning, heard between two steps instead of in the middle of one."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["SIGNALS", "asked_to_stop"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""SIGUSR1 is what Slurm is told to send some minutes before a job's time is over."""


@contextlib.contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Yield an event that SIGINT, SIGTERM or SIGUSR1 sets.

    A second SIGINT acts at once, as usual. The others come from batch systems, which send them more than once, to an
    agent and to its ranks: only the first counts.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def hear(_number: int, _frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, hear)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
