import os
import signal
import threading

import pytest

from yatsude.train.stopping import asked_to_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_a_wish(number):
    before = signal.getsignal(number)
    with asked_to_stop() as event:
        assert not event.is_set()
        os.kill(os.getpid(), number)
        assert event.wait(5)
    assert signal.getsignal(number) == before


def test_a_batch_system_may_say_it_twice():
    """To an agent, which passes it on, and to the ranks."""
    with asked_to_stop() as event:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert event.wait(5)


@pytest.fixture
def usual():
    """Ctrl-C as in a terminal: a shell starts what runs in its background with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual")
def test_a_second_ctrl_c_acts_at_once():
    with asked_to_stop() as event:
        os.kill(os.getpid(), signal.SIGINT)
        assert event.wait(5)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), asked_to_stop():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) == before


def test_in_another_thread_no_signal_is_taken():
    seen = []

    def work():
        with asked_to_stop() as event:
            seen.append(event.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
