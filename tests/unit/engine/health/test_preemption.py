"""Signals become a flag and nothing else."""

import os
import signal
import threading

import pytest

from megadec.engine.health.preemption import STOP_SIGNALS, Interrupt, listen_in_main_thread

THREAD_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_stop_signal_is_remembered_and_named_and_does_nothing_else(number: signal.Signals) -> None:
    before = handlers()
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), number)
        assert interrupt.requested
        assert interrupt.reason == number.name
    assert handlers() == before, "the former ones come back"


def test_the_first_rank_says_at_once_that_it_stops_and_says_it_once(capfd: pytest.CaptureFixture[str]) -> None:
    with Interrupt():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err.count("stopping (") == 1


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    with Interrupt(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_reaches_an_interrupt_in_a_thread_when_the_main_thread_listens_and_keeps_its_meaning_after_it() -> (
    None
):
    meant: list[int] = []
    before = {number: signal.signal(number, lambda n, _: meant.append(n)) for number in THREAD_SIGNALS}
    entered, go_on, seen = threading.Event(), threading.Event(), []

    def loop() -> None:
        with Interrupt() as interrupt:
            entered.set()
            go_on.wait()
            seen.extend([interrupt.requested, interrupt.reason, handlers()])

    thread = threading.Thread(target=loop)
    try:
        listen_in_main_thread()
        listening = handlers()
        thread.start()
        entered.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        go_on.set()
        thread.join()
        assert seen == [True, "SIGTERM", listening], "a thread leaves the handlers to the main thread"
        assert meant == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert meant == [signal.SIGUSR1]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
