import threading

import pytest
import torch

from yatsude.train.workers import Workers, cores, keep_freed_memory


def test_results_come_in_order_from_threads_of_one_core_each():
    workers, meet = Workers(2), threading.Barrier(2, timeout=20)

    def work(number):
        meet.wait()  # both are at work at once
        return number, torch.get_num_threads()

    assert workers.map(work, [5, 6]) == [(5, 1), (6, 1)]
    workers.close()


def test_the_first_error_is_raised():
    workers = Workers(2)
    with pytest.raises(ZeroDivisionError):
        workers.map(lambda x: 1 / x, [1, 0])
    assert workers.map(lambda x: 1 / x, [1, 2]) == [1, 0.5]
    workers.close()


def test_the_machine_has_a_core():
    assert cores() >= 1
    assert keep_freed_memory() in (True, False)
