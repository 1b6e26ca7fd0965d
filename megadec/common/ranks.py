"""Which process this is among its peers, read from the environment that its launcher sets.

deepspeed, torchrun and Ray Train set RANK, LOCAL_RANK and WORLD_SIZE; Slurm's srun, Open MPI and MPICH have names of
their own, which `adopt_launcher` writes under those that torch and DeepSpeed read. Reading them (rather than
torch.distributed) works before the process group exists and in packages that do not import torch.
"""

import os
import re
import zlib
from typing import NamedTuple

from megadec.common.errors import ConfigError


class _Launcher(NamedTuple):
    """Its variables; it has started this process where one of `signs` is set."""

    name: str
    signs: tuple[str, ...]
    rank: str
    world_size: str
    local_rank: str
    local_world_size: str | None


# Open MPI and MPICH start their own processes through srun, so Slurm comes last. A batch script has SLURM_PROCID=0 and
# the SLURM_NTASKS of its allocation though nothing started it as one of several; only srun says SLURM_STEP_NUM_TASKS.
_LAUNCHERS = (
    _Launcher("a launcher", ("RANK", "WORLD_SIZE"), "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    _Launcher(
        "Open MPI", ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    _Launcher("MPICH", ("MPI_LOCALRANKID",), "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    _Launcher("srun", ("SLURM_STEP_NUM_TASKS",), "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", None),
)  # fmt: skip
# Where a launcher has put this process: a process that is no rank of the same run is started without them.
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Below the ports that Linux hands out by itself.
_FIRST_PORT, _PORTS = 10_000, 20_000


def rank() -> int:
    """This process's number among all, from 0; 0 where nothing readable says so."""
    launcher = _launcher()
    return _number(launcher.rank, 0) if launcher else 0


def local_rank() -> int:
    """This process's number on its machine, from 0. Known once `adopt_launcher` was called."""
    return _number("LOCAL_RANK", 0)


def world_size() -> int:
    """How many processes train together; 1 where nothing readable says so."""
    launcher = _launcher()
    return _number(launcher.world_size, 1) if launcher else 1


def is_first() -> bool:
    """Whether this process is the one that prints and writes for all."""
    return rank() == 0


def local_world_size() -> int:
    """How many processes train on this machine (1 where the launcher does not say); deepspeed calls it LOCAL_SIZE.

    Known once `adopt_launcher` was called.
    """
    return _number("LOCAL_WORLD_SIZE", _number("LOCAL_SIZE", 1))


def adopt_launcher() -> str | None:
    """Write this process's place under the names that torch and DeepSpeed read, MASTER_ADDR and MASTER_PORT included.

    Returns a sentence for the log where a launcher with names of its own was found, or none in an allocation for
    several. Raises ConfigError for variables that are half set, are no numbers, or do not say where rank 0 is:
    processes that each took themselves for the only one would train copies of one run.
    """
    launcher = _launcher()
    if launcher is None:
        return _alone()
    size = _required(launcher.world_size, launcher)
    if size == 1 and not os.environ.get(launcher.rank):
        return None
    number = _required(launcher.rank, launcher)
    if not 0 <= number < size:
        raise ConfigError(f"{launcher.rank}={number} and {launcher.world_size}={size}: ranks count from 0")
    os.environ.update(RANK=str(number), WORLD_SIZE=str(size), LOCAL_RANK=str(_number(launcher.local_rank, 0)))
    here = _number(launcher.local_world_size, 0) if launcher.local_world_size else _slurm_tasks_here()
    if here:
        os.environ["LOCAL_WORLD_SIZE"] = str(here)
    if size > 1:
        for name, found in (("MASTER_ADDR", _address(size, here)), ("MASTER_PORT", _port())):
            if found is None:
                raise ConfigError(
                    f"{launcher.world_size}={size} is set without {name}, where rank 0 awaits the others"
                    f"{' (srun says it with SLURM_STEP_NODELIST)' * (launcher.name == 'srun')}"
                )
            os.environ[name] = found
    if size == 1 or launcher is _LAUNCHERS[0]:
        return None
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return f"rank {number} of {size}, says {launcher.name}; the ranks meet at {place}"


def _launcher() -> _Launcher | None:
    return next((one for one in _LAUNCHERS if any(os.environ.get(sign) for sign in one.signs)), None)


def _alone() -> str | None:
    """What is to be told where no launcher started this process."""
    if number := _number("SLURM_PROCID", 0):
        raise ConfigError(f"SLURM_PROCID={number} is set without SLURM_STEP_NUM_TASKS; srun sets both")
    tasks = _number("SLURM_NTASKS", 1)
    wanted = "`srun python ...` starts a rank for each"
    return f"training with one rank in an allocation of {tasks} tasks: {wanted}" if tasks > 1 else None


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, ""))
    except ValueError:  # unset, or nothing that a rank could be: `adopt_launcher` says so
        return default


def _required(name: str, launcher: _Launcher) -> int:
    """The number of this variable. Raises ConfigError where it is none, or not there beside the launcher's others."""
    text = os.environ.get(name, "")
    if not text:
        sign = next(one for one in launcher.signs if os.environ.get(one))
        raise ConfigError(f"{sign}={os.environ[sign]} is set without {name}; {launcher.name} sets both")
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"environment variable {name}={text!r}: an integer is expected") from error


def _slurm_tasks_here() -> int:
    """How many tasks of the step run on this node, 0 where it is not said.

    `2(x3),1` is two on each of three nodes and one on the fourth.
    """
    counts: list[int] = []
    for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")):
        counts += [int(number)] * int(times or 1)
    node = _number("SLURM_NODEID", 0)
    return counts[node] if node < len(counts) else 0


def _address(size: int, here: int) -> str | None:
    """Where rank 0 is: what was said, this machine where all ranks are on it, or the first of Slurm's nodes."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST")
    found = "127.0.0.1" if here == size else first_node(nodes) if nodes else None
    return os.environ.get("MASTER_ADDR") or found


def first_node(nodes: str) -> str:
    """The first name of a list of Slurm's: `node[01-03,7],login` is node01, node02, node03, node7 and login."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)


def _port() -> str | None:
    """What was said, or a port that follows from the job's name, so that jobs which share a node have each its own."""
    slurm = ".".join(os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")).strip(".")
    job = os.environ.get("PMIX_NAMESPACE") or slurm
    found = str(_FIRST_PORT + zlib.crc32(job.encode()) % _PORTS) if job else None
    return os.environ.get("MASTER_PORT") or found
