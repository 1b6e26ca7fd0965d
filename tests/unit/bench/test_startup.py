"""The answer to a wrong request is timed where it is said."""

from bench.startup import BY_ITSELF, commands, start


def test_the_answer_is_timed_at_its_line() -> None:
    found = start(commands(1)[BY_ITSELF])
    assert found.answered is not None
    assert 0 < found.answered <= found.seconds
    assert found.cpu_seconds > 0
