"""A rank that waits says for whom."""

from tests.support.tiny_runs import NO_EVALUATION, TinyRuns


def test_a_rank_that_waits_names_the_late_rank_with_its_step_and_the_line_where_it_is(runs: TinyRuns) -> None:
    sleepy = runs.training("sleepy", train={"steps": 4}, evaluate=NO_EVALUATION, guard={"stall_seconds": 1.5})
    runs.train({**sleepy, "sleep": {"rank": 1, "step": 3, "seconds": 5.0}})
    stalls = runs.of("sleepy") / "stalls"
    waiting = (stalls / "step_00000003_rank_0000.txt").read_text()
    summary, _, stacks = waiting.partition("\n")
    assert summary.startswith("rank 0 (step 3, ")
    assert "late: rank 1 (step 3, forward/backward, for " in summary
    late, _, own = stacks.partition("rank 0, which reports, is here:")
    assert "rank 1, which is late, is here:" in late
    assert 'time.sleep(sleeping["seconds"])' in late
    assert "megadec/engine/step.py" in own
    assert "others wait for it" in (stalls / "step_00000003_rank_0001.txt").read_text()
    assert len(runs.losses("sleepy")) == 4, "a report ends nothing"
