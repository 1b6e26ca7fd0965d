"""A rank that has done its work ends with 0, whatever the threads of its collectives are still doing."""

import json

from tests.support.processes import run_script

PAIRS = 6


def test_a_rank_that_ends_right_after_its_last_message_ends_with_0() -> None:
    ended = run_script("tests/support/end_many.py", PAIRS)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert json.loads(ended.stdout) == [0] * 2 * PAIRS, ended.stderr[-4000:]
