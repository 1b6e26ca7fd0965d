"""A rehearsal from the command line: real starts, real kills, and an exit status that says whether all is well."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megadec.rehearse.disturbances import KINDS
from tests.support.processes import run_script
from tests.support.tiny_runs import TinyRuns

NO_OTHERS = ("--stops=0", "--damaged_shards=0", "--full_disks=0", "--moves=0", "--requeues=0")
Rehearse = Callable[..., tuple[int, dict[str, Any], str]]


# What is killed crosses from one stage into the next.
STAGES = [
    {
        "name": "other",
        "first_step": 2,
        "data": {"sequence_length": 64},
        "train": {"global_batch_size": 16},
        "optimizer": {"learning_rate": 0.001},
    }
]


@pytest.fixture
def rehearse(tmp_path: Path, runs: TinyRuns) -> Rehearse:
    """Takes options; gives the exit status, the report, and what was printed."""

    def ask(*options: str) -> tuple[int, dict[str, Any], str]:
        output = tmp_path / "rehearsal.json"
        command = [*runs.command("real", stages=STAGES), "--output", output, "--folder", tmp_path / "all", *options]
        done = run_script("tools/rehearse.py", *command)
        assert output.exists(), done.stderr[-4000:]
        return done.returncode, json.loads(output.read_text()), done.stdout + done.stderr

    return ask


def test_a_run_that_is_killed_in_a_save_and_started_twice_is_the_undisturbed_run(rehearse: Rehearse) -> None:
    once = ("--kills=1", "--share_in_saves=1", "--share_in_evaluations=0", "--second_starts=1", "--seed=131")
    status, report, said = rehearse(*NO_OTHERS, *once)
    assert (status, report["problems"]) == (0, {}), said
    assert report["final_loss"] == report["undisturbed_loss"]
    killed, twice, last = report["rows"]
    assert (killed["kind"], killed["place"], last["kind"]) == ("kill", "in a save", None)
    assert (twice["kind"], twice["said"], twice["status"]) == ("second start", True, 0)
    assert all(row["went_on_from"] == row["whole"] > 0 for row in report["rows"])
    assert "All 3 rows are as they must be." in said


@pytest.mark.slow
def test_a_run_survives_everything_that_a_rehearsal_knows_at_other_ranks_and_stages(
    rehearse: Rehearse, runs: TinyRuns
) -> None:
    ranks = ("--rank_numbers", "1", "2", "3", "--other_deepspeed", str(runs.zero("zero1")))
    status, report, said = rehearse("--kills=5", "--stops=3", "--damaged_shards=2", "--full_disks=3", *ranks)
    assert (status, report["problems"]) == (0, {}), said
    kinds = {row["kind"] for row in report["rows"]}
    assert kinds == {*KINDS}


@pytest.mark.slow
def test_a_loss_that_may_not_differ_at_all_fails_the_rehearsal_at_another_number_of_ranks(rehearse: Rehearse) -> None:
    # This seed draws three ranks for the start that is killed.
    options = ("--kills=1", "--second_starts=0", "--rank_numbers", "2", "3", "--seed=0", "--tolerance=0")
    status, report, said = rehearse(*NO_OTHERS, *options)
    assert status == 1
    assert report["problems"]
    assert "a loss differs by" in said
    assert "are not as they must be" in said
