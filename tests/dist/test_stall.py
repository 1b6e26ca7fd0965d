"""A rank that waits says for whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.processes import losses_of, train_all


def test_a_rank_that_waits_names_the_late_rank_with_its_step_and_the_line_where_it_is(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    run = make_run("sleepy", train={"steps": 4}, evaluate={"sets": {}}, guard={"stall_seconds": 3.0})
    sleep = {"rank": 1, "step": 3, "seconds": 10.0}
    plan = [{"run": str(run), "deepspeed": str(zero_file("zero3")), "sleep": sleep}]
    train_all(tmp_path, plan)

    folder = tmp_path / "runs" / "sleepy"
    waiting = (folder / "stalls" / "step_00000003_rank_0000.txt").read_text()
    summary, _, stacks = waiting.partition("\n")
    assert summary.startswith("rank 0 (step 3, ")
    assert "late: rank 1 (step 3, forward/backward, for " in summary
    late, _, own = stacks.partition("rank 0, which reports, is here:")
    assert "rank 1, which is late, is here:" in late
    assert 'time.sleep(sleeping["seconds"])' in late
    assert "megadec/engine/step.py" in own
    assert "others wait for it" in (folder / "stalls" / "step_00000003_rank_0001.txt").read_text()
    assert len(losses_of(folder)) == 4, "a report ends nothing"
