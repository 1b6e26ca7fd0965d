"""Prefetching changes when batches are made, never what comes or which error."""

import threading
import time

import pytest
import torch

from megadec.common.errors import ShardError
from megadec.data.batch import TokenBatch
from megadec.data.prefetch import Prefetcher
from tests.support.processes import wait_until


def batch_of(step: int) -> list[TokenBatch]:
    shape = (2, 4)
    whole = torch.full(shape, step)
    return [
        TokenBatch(whole, whole + 1, torch.ones(shape), torch.zeros_like(whole), torch.zeros(shape, dtype=torch.int32))
    ]


def steps_of(batches) -> list[int]:
    return [int(step[0].ids_BS[0, 0]) for step in batches]


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("last", [3, 9])
def test_batches_come_in_order_from_the_first_step_up_to_the_last(depth, workers, last):
    with Prefetcher(batch_of, 3, last, depth=depth, workers=workers) as batches:
        assert steps_of(batches) == list(range(3, last))
        assert list(batches) == []


def test_batches_that_take_very_different_times_still_come_in_order():
    def make(step: int) -> list[TokenBatch]:
        time.sleep(0.02 if step % 3 == 0 else 0)
        return batch_of(step)

    with Prefetcher(make, 0, 40, workers=3) as batches:
        assert steps_of(batches) == list(range(40))


def test_as_many_batches_are_made_at_once_as_there_are_workers():
    meet = threading.Barrier(3)

    def make(step: int) -> list[TokenBatch]:
        meet.wait(10)
        return batch_of(step)

    with Prefetcher(make, 0, 6, workers=3) as batches:
        assert steps_of(batches) == list(range(6))


def test_without_workers_nothing_is_made_before_it_is_wanted():
    made: list[int] = []

    def make(step: int) -> list[TokenBatch]:
        made.append(step)
        return batch_of(step)

    before = threading.active_count()
    with Prefetcher(make, 0, 9, workers=0) as batches:
        assert (made, threading.active_count()) == ([], before)
        next(batches)
        assert made == [0]


def test_at_most_depth_batches_and_the_one_in_hand_are_made_ahead():
    made: list[int] = []

    def make(step: int) -> list[TokenBatch]:
        made.append(step)
        return batch_of(step)

    with Prefetcher(make, 0, 100, depth=2) as batches:
        wait_until(lambda: len(made) == 3, "the third batch")
        time.sleep(0.02)
        assert made == [0, 1, 2]
        next(batches)
        wait_until(lambda: len(made) == 4, "the fourth batch")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_is_raised_where_its_batch_would_have_come(workers):
    def make(step: int) -> list[TokenBatch]:
        if step == 2:
            raise ShardError("shard-000001.tar is gone")
        return batch_of(step)

    with Prefetcher(make, 0, 5, workers=workers) as batches:
        assert steps_of([next(batches), next(batches)]) == [0, 1]
        for _ in range(2):
            with pytest.raises(ShardError, match=r"shard-000001\.tar is gone"):
                next(batches)


@pytest.mark.parametrize("workers", [1, 3])
def test_close_ends_the_threads_and_may_be_called_twice(workers):
    before = threading.active_count()
    batches = Prefetcher(batch_of, 0, 1000, workers=workers)
    next(batches)
    batches.close()
    batches.close()
    assert threading.active_count() == before
    assert list(batches) == []


def test_seconds_waited_is_the_time_that_next_waits_for_a_slow_source_and_none_for_a_fast_one():
    def slow(step: int) -> list[TokenBatch]:
        time.sleep(0.05)
        return batch_of(step)

    with Prefetcher(slow, 0, 3) as batches:
        assert steps_of(batches) == [0, 1, 2]
        assert 0.1 < batches.seconds_waited < 5
    with Prefetcher(batch_of, 0, 3, depth=3) as batches:
        wait_until(lambda: all(future.done() for future in batches._coming), "all batches")
        assert steps_of(batches) == [0, 1, 2]
        assert batches.seconds_waited < 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_equal_those_on_the_cpu():
    with Prefetcher(batch_of, 0, 50, device="cuda", depth=3) as batches:
        for step, (batch,) in enumerate(batches):
            assert batch.ids_BS.is_cuda
            assert torch.equal(batch.ids_BS.cpu(), batch_of(step)[0].ids_BS)
