"""A rank that stands still, and one that is killed, is named by the others with the step and the phase it was in."""

import os
import re
import signal
from pathlib import Path

from tests.support.disturb import pretrain_rank
from tests.support.processes import codes_of, errors_of, forked, wait_until
from tests.support.tiny_runs import ENDLESS, NO_EVALUATION, TinyRuns


def test_a_frozen_rank_and_a_killed_one_are_named_with_their_step_and_phase(tmp_path: Path, runs: TinyRuns) -> None:
    log, stalls = tmp_path / "log", runs.of("lost") / "stalls"
    command = runs.command("lost", train=ENDLESS, evaluate=NO_EVALUATION, guard={"stall_seconds": 2.0})
    with forked(pretrain_rank, [command], 2, log) as ranks:
        wait_until(lambda: len(runs.metrics("lost")) >= 4, "the fourth step", log)
        os.kill(ranks[1].pid, signal.SIGSTOP)
        wait_until(lambda: bool(list(stalls.glob("*rank_0000.txt"))), "the report", log)
        done = len(runs.metrics("lost"))
        [report] = stalls.glob("*rank_0000.txt")
        late = re.search(r"late: rank 1 \(step (\d+), ([a-z/]+), for ([\d.]+) s\)", report.read_text())
        assert late, report.read_text()
        assert float(late[3]) >= 1, "it has been so for as long as the other waits"
        assert done <= int(late[1]) <= done + 1
        assert late[2] in ("data", "agree", "forward/backward", "reduce", "update")
        os.kill(ranks[1].pid, signal.SIGKILL)
        wait_until(lambda: ranks[0].exitcode is not None, "the end of rank 0", log, seconds=60)
        assert codes_of(ranks, log) == [1, -signal.SIGKILL]
    [error] = errors_of(log.read_text())
    assert error.startswith(f"error: rank 1 is lost, last at step {late[1]} ({late[2]}): killed, out of reach, or")


def test_where_rank_0_is_killed_the_next_one_says_so_at_once(tmp_path: Path, runs: TinyRuns) -> None:
    log = tmp_path / "log"
    with forked(pretrain_rank, [runs.command("first", train=ENDLESS, evaluate=NO_EVALUATION)], 2, log) as ranks:
        wait_until(lambda: len(runs.metrics("first")) >= 2, "the second step", log)
        os.kill(ranks[0].pid, signal.SIGKILL)
        wait_until(lambda: "rank 0, which all others meet at, is lost" in log.read_text(), "the word", log, seconds=15)
    assert "Traceback" not in log.read_text()
