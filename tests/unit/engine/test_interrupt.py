"""Signals become a flag and nothing else."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from megadec.engine.interrupt import STOP_SIGNALS, Interrupt


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_stop_signal_is_remembered_and_named_and_does_nothing_else(number: signal.Signals) -> None:
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), number)
        assert interrupt.requested
        assert interrupt.reason == number.name


def test_the_former_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with Interrupt():
        pass
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    with Interrupt(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_thread_may_train_and_leaves_the_handlers_to_the_main_thread() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    seen: list[object] = []

    def loop() -> None:
        with Interrupt() as interrupt:
            seen.extend(signal.getsignal(number) for number in STOP_SIGNALS)
            seen.append(interrupt.requested)

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert seen == [*before, False]
