"""A function over a stream in processes: order, errors, and how far it runs ahead."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from megadec.common.errors import InputError, MegadecError
from megadec.corpus.parallel import AHEAD_PER_WORKER, map_in_order


def slow_square(number: int) -> int:
    time.sleep(0.02 if number % 3 == 0 else 0)
    return number * number


def refuse_seven(number: int) -> int:
    if number == 7:
        raise InputError("seven.txt: is refused")
    return number


def kill_itself(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert list(map_in_order(slow_square, range(20), workers)) == [number * number for number in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_s_error_reaches_the_caller(workers: int) -> None:
    with pytest.raises(InputError, match=r"seven\.txt: is refused"):
        list(map_in_order(refuse_seven, range(20), workers))


def test_a_killed_worker_is_an_error_that_says_so() -> None:
    with pytest.raises(MegadecError, match="a worker process ended: memory ran out"):
        list(map_in_order(kill_itself, range(3), 2))


def test_only_a_few_items_are_taken_ahead_and_leaving_early_ends_the_processes() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    with closing(map_in_order(slow_square, items(), 2)) as results:
        next(results)
        assert len(taken) <= 2 * AHEAD_PER_WORKER
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()
