"""Real processes for the distributed tests: forked ranks, the deepspeed launcher, and scripts."""

import gc
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.context import ForkServerProcess as Rank
from pathlib import Path
from typing import Any

import psutil
import yaml

from megadec.common.log import logger
from megadec.common.processes import free_port, session_of
from megadec.common.ranks import PLACE
from tests.support import PROJECT

PRETRAIN = PROJECT / "launch" / "pretrain.py"
TRAIN_MANY = PROJECT / "tests" / "support" / "train_many.py"
# Generous: two ranks on a machine that others load take many times as long as on an idle one.
DEADLINE_SECONDS = 800.0


def environment(**more: str) -> dict[str, str]:
    """This process's variables for a process of its own, which finds the project's modules; not a rank of anything."""
    inherited = {key: value for key, value in os.environ.items() if key not in PLACE}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
    return {**inherited, "PATH": path, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", **more}


def run_script(script: str | Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script of the project to its end, from the project's folder; its output comes back as text."""
    return subprocess.run(
        [sys.executable, str(PROJECT / script), *map(str, arguments)],
        cwd=PROJECT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


def errors_of(said: str) -> list[str]:
    """The error lines of a command, which is not to show a traceback."""
    assert "Traceback" not in said, said
    return [line for line in said.splitlines() if line.startswith("error: ")]


# What ranks import costs more than most trainings here: they are forked from one process that has imported it. That is
# safe because nothing was computed there (its only other thread is that of Arrow's allocator, which knows of forks) and
# CUDA was only counted, through NVML (tests/conftest.py). What a test sets in its environment does not reach them.
_FORKS = multiprocessing.get_context("forkserver")
# Building the first engine of a process imports the rest.
_FORKS.set_forkserver_preload(["tests.support.train_many", "torch._dynamo", "setuptools"])


Launcher = Callable[[int, int], dict[str, str]]


@contextmanager
def forked(
    do: Callable[..., None], arguments: Sequence[Any], ranks: int, log: Path, *, launcher: Launcher | None = None
) -> Iterator[list[Rank]]:
    """`do(*arguments)` in so many processes that find each other; they print into one file. None outlives it.

    launcher: (rank, ranks) -> the variables that it sets; torchrun's where it is None.
    """
    together = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = []
    try:
        for rank in range(ranks):
            usual = {**together, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            variables = usual if launcher is None else launcher(rank, ranks)
            process = _FORKS.Process(target=_be_rank, args=(variables, log, do, arguments), daemon=True)
            process.start()
            processes.append(process)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _be_rank(variables: dict[str, str], log: Path, do: Callable[..., None], arguments: Sequence[Any]) -> None:
    os.environ.update(variables)
    logging.getLogger("megadec").handlers.clear()  # those of a process that was no rank yet
    logger("megadec")
    gc.freeze()  # DeepSpeed collects garbage with every engine, and what was imported is none
    with open(log, "ab") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    do(*arguments)


def codes_of(processes: Iterable[Rank], log: Path, seconds: float = DEADLINE_SECONDS) -> list[int | None]:
    """The status of each process when all have ended, or one has failed; None for one that still runs."""

    def codes() -> list[int | None]:
        return [process.exitcode for process in processes]

    wait_until(lambda: any(codes()) or None not in codes(), "the end of the ranks", log, seconds=seconds)
    return codes()


def run_ranks(do: Callable[..., None], arguments: Sequence[Any], ranks: int, log: Path) -> None:
    """Run `do(*arguments)` as `ranks` processes that find each other; fail with their output when one fails."""
    with forked(do, arguments, ranks, log) as processes:
        codes = codes_of(processes, log)
    assert not any(codes), f"the ranks ended with {codes}:\n{log.read_text()[-8000:]}"


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A command whose output goes to a file; at the end all that it started is gone. options: of Popen."""
    usual = {"cwd": PROJECT, "env": environment(), "stderr": subprocess.STDOUT, "start_new_session": True}
    with open(log, "wb") as stream:
        process = subprocess.Popen(command, stdout=stream, **{**usual, **options})
    try:
        yield process
    finally:
        for descendant in session_of(process.pid):
            with suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
                descendant.kill()
        process.kill()
        process.wait()


def deepspeed(
    arguments: list[str], ranks: int, log: Path, script: Path = PRETRAIN
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """The real launcher around a script."""
    command = ["deepspeed", "--num_accelerators", str(ranks), "--master_port", str(free_port()), str(script)]
    return running([*command, *arguments], log)


def launched(arguments: list[str], ranks: int, log: Path, script: Path = PRETRAIN, status: int = 0) -> str:
    """The launcher around a script, which must end with this status: what was printed."""
    with deepspeed(arguments, ranks, log, script) as launcher:
        assert launcher.wait(DEADLINE_SECONDS) == status, log.read_text()[-4000:]
    return log.read_text()


def wait_until(
    condition: Callable[[], bool],
    what: str,
    log: Path | None = None,
    pause: float = 0.05,
    seconds: float = DEADLINE_SECONDS,
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come; {log.read_text()[-4000:] if log else ''}")
        time.sleep(pause)


def metrics_of(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The whole lines of a run's metrics.jsonl of one kind; none where there is no file yet."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [values for values in map(json.loads, lines) if values["kind"] == kind]


def losses_of(folder: Path) -> list[float]:
    values = metrics_of(folder)
    assert [line["step"] for line in values] == list(range(1, len(values) + 1)), "a step is missing or there twice"
    return [line["loss"] for line in values]


def write_run(folder: Path, name: str, run: dict[str, Any], sections: dict[str, Any]) -> Path:
    """Write the YAML of a run of `folder` with some sections changed; None: without the section."""
    usual = {"name": name, "output_folder": str(folder / "runs"), "metrics": {"tensorboard": False}, **run}
    for key, value in sections.items():
        usual[key] = {**usual.get(key, {}), **value} if isinstance(value, dict) else value
    stated = {key: value for key, value in usual.items() if value is not None}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(stated, allow_unicode=True), encoding="utf-8")
    return path
