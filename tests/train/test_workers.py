import threading

import pytest
import torch

from yatsude.machine import cores, keep_freed_memory
from yatsude.train.workers import Workers


def test_results_come_in_order_from_threads_of_one_core_each():
    meet = threading.Barrier(2, timeout=20)

    def work(number):
        meet.wait()  # both are at work at once
        return number, torch.get_num_threads()

    with Workers(2) as workers:
        assert workers.map(work, [5, 6]) == [(5, 1), (6, 1)]


def test_the_first_error_is_raised():
    with Workers(2) as workers:
        with pytest.raises(ZeroDivisionError):
            workers.map(lambda x: 1 / x, [1, 0])
        assert workers.map(lambda x: 1 / x, [1, 2]) == [1, 0.5]


def test_an_error_ends_the_threads_too():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), Workers(2) as workers:
        workers.map(lambda x: 1 / x, [1, 0])
    assert threading.active_count() == before


def test_the_machine_has_a_core():
    assert cores() >= 1
    assert keep_freed_memory() in (True, False)
