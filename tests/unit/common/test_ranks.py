"""Every launcher's variables are understood, or refused where they are half set."""

import os
from unittest import mock

import pytest

from megadec.common.errors import ConfigError
from megadec.common.ranks import adopt_launcher, first_node, is_first, rank, world_size

STEP = {
    "SLURM_STEP_NUM_TASKS": "7", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "2", "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[09-11,20]", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
}  # fmt: skip
MPI = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "prterun-host-7@1",
}  # fmt: skip
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2", "MASTER_PORT": "9"}
TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"
}  # fmt: skip
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


def adopted(variables: dict[str, str]) -> tuple[dict[str, str], str | None]:
    """What torch and DeepSpeed then read, and what the log is told."""
    with mock.patch.dict(os.environ, variables, clear=True):
        before = rank(), world_size()
        said = adopt_launcher()
        assert (rank(), world_size()) == before, "the log knew it from the beginning"
        return dict(os.environ), said


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (TORCHRUN, ("3", "4", "1", "2", "a")),
        (STEP, ("5", "7", "1", "2", "gpu09")),
        (MPI, ("1", "2", "1", "2", "127.0.0.1")),
        (MPICH, ("1", "2", "1", "2", "127.0.0.1")),
        ({**STEP, **TORCHRUN}, ("3", "4", "1", "2", "a")),  # torchrun on every node of a step
        ({**STEP, **MPI, "MASTER_ADDR": "b"}, ("1", "2", "1", "2", "b")),  # mpirun starts its processes through srun
    ],
)
def test_the_variables_of_each_launcher_become_those_that_torch_reads(
    variables: dict[str, str], expected: tuple[str, ...]
) -> None:
    found, _ = adopted(variables)
    assert tuple(found[name] for name in NAMES) == expected
    assert found["MASTER_PORT"]


def test_ranks_of_one_job_meet_at_one_port_and_other_jobs_at_another() -> None:
    ports = [
        adopted({**STEP, **more})[0]["MASTER_PORT"] for more in ({}, {"SLURM_PROCID": "0"}, {"SLURM_JOB_ID": "13"})
    ]
    assert ports[0] == ports[1] != ports[2]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1"}, "RANK=1 is set without WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set without RANK"),
        ({"RANK": "1", "WORLD_SIZE": "two"}, "WORLD_SIZE='two': an integer"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2: ranks count from 0"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1"}, "WORLD_SIZE=2 is set without MASTER_ADDR"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "WORLD_SIZE=2 is set without MASTER_PORT"),
        ({**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "OMPI_COMM_WORLD_SIZE=2 is set without MASTER_ADDR"),
        ({"MPI_LOCALRANKID": "0"}, "MPI_LOCALRANKID=0 is set without PMI_SIZE"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_STEP_NUM_TASKS=2 is set without SLURM_PROCID"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "SLURM_PROCID=1 is set without SLURM_STEP_NUM_TASKS"),
    ],
)
def test_what_is_half_set_is_refused_with_the_variable(variables: dict[str, str], message: str) -> None:
    with mock.patch.dict(os.environ, variables, clear=True):
        is_first()  # the log asks at import, where nobody could say an error
        with pytest.raises(ConfigError, match=message):
            adopt_launcher()


def test_a_batch_script_is_one_process_of_its_allocation_and_says_so() -> None:
    found, said = adopted({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "node1"})
    assert "WORLD_SIZE" not in found
    assert "allocation of 2 tasks" in str(said)
    assert adopted({}) == ({}, None)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("node1,node2", "node1"),
        ("node[01-03,7],login", "node01"),
        ("r[1-2]n[3,5]-ib", "r1n3-ib"),
        ("a-b[10]", "a-b10"),
    ],
)
def test_the_first_node_of_slurms_list_is_found(nodes: str, first: str) -> None:
    assert first_node(nodes) == first
