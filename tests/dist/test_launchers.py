"""Ranks find each other whichever launcher starts them, and never train copies of a run side by side."""

from pathlib import Path

import pytest

from tests.support.disturb import pretrain_rank
from tests.support.processes import codes_of, errors_of, forked, run_script
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns


def srun(rank: int, ranks: int) -> dict[str, str]:
    """What Slurm gives the tasks of a step on one node."""
    names = {"PROCID": rank, "LOCALID": rank, "NODEID": 0, "NTASKS": ranks, "STEP_NUM_TASKS": ranks, "STEP_ID": 0}
    nodes = {"JOB_NODELIST": "gpu[07-08]", "STEP_NODELIST": "gpu07", "STEP_TASKS_PER_NODE": ranks, "JOB_ID": 4711}
    return {f"SLURM_{name}": str(value) for name, value in {**names, **nodes}.items()}


def mpirun(rank: int, ranks: int) -> dict[str, str]:
    """What Open MPI gives its processes on one machine."""
    names = {"RANK": rank, "SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_SIZE": ranks}
    return {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in names.items()} | {"PMIX_NAMESPACE": "prterun-a@1"}


def test_two_tasks_of_srun_or_mpirun_are_two_ranks_with_the_losses_of_the_usual_launcher(
    tmp_path: Path, runs: TinyRuns
) -> None:
    sections = {"train": {"steps": 3}, "evaluate": NO_EVALUATION}
    runs.train(runs.training("usual", **sections))
    for launcher in (srun, mpirun):
        name, log = launcher.__name__, tmp_path / launcher.__name__
        with forked(pretrain_rank, [runs.command(name, **sections)], 2, log, launcher=launcher) as ranks:
            assert codes_of(ranks, log) == [0, 0], log.read_text()[-4000:]
        assert runs.losses(name) == runs.losses("usual")
        said = log.read_text()
        assert said.count("rank 0 of 2, says") == 1
        assert "2 rank(s)" in said


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ({"RANK": "1"}, "RANK=1 is set without WORLD_SIZE; a launcher sets both"),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
            "WORLD_SIZE=2 is set without MASTER_ADDR, where rank 0 awaits the others",
        ),
    ],
)
def test_half_set_variables_are_one_line_and_status_2(runs: TinyRuns, variables: dict[str, str], wrong: str) -> None:
    ended = run_script("launch/pretrain.py", *runs.command("half"), **variables)
    assert ended.returncode == 2
    assert errors_of(ended.stderr) == [f"error: {wrong}"]
    assert len(ended.stderr.splitlines()) == 1
    assert not runs.of("half").exists()
