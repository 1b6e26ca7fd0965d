"""A rank that has done its work ends with 0, whatever the threads of its collectives are still doing."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support import PROJECT
from tests.support.processes import DEADLINE_SECONDS, END_MANY, environment

PAIRS = 12


def test_a_rank_that_ends_right_after_its_last_message_ends_with_0() -> None:
    ended = subprocess.run(
        [sys.executable, str(END_MANY), str(PAIRS)],
        env=environment(PYTHONPATH=str(PROJECT)),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert json.loads(ended.stdout) == [0] * 2 * PAIRS, ended.stderr[-4000:]
