"""Real processes for the distributed tests: ranks started by hand, and the deepspeed launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import psutil
import yaml

from megadec.common.processes import free_port, session_of
from tests.support import PROJECT

PRETRAIN = PROJECT / "launch" / "pretrain.py"
# Scripts that several ranks run: many short trainings, or requests, in one process, as imports cost more than they do.
TRAIN_MANY, END_MANY, AGREE_ON_DATA = (
    Path(__file__).parent / f"{name}.py" for name in ("train_many", "end_many", "agree_on_data")
)
# Generous: two ranks on a machine that others load take many times as long as on an idle one.
DEADLINE_SECONDS = 800.0

TINY_RUN: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "shape": {
            "hidden_size": 32,
            "layers": 2,
            "heads": 2,
            "kv_heads": 1,
            "head_size": 16,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
        }
    },
    "data": {"sequence_length": 32},
    "train": {"steps": 12, "global_batch_size": 8, "micro_batch_size": 2, "precision": "fp32"},
    "optimizer": {"learning_rate": 0.003},
    "schedule": {"warmup_steps": 3},
    "evaluate": {"interval_steps": 4, "windows": 9, "micro_batch_size": 4},
    "checkpoint": {"interval_steps": 0, "keep_last": 3},
    "metrics": {"tensorboard": False},
}


def environment(**more: str) -> dict[str, str]:
    """This process's variables for a process of its own, which finds the project's modules; not a rank of anything."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
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


def errors_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The error lines of a command, which is not to show a traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def start_ranks(
    arguments: list[str], ranks: int, variables: dict[str, str] | None = None, **options: Any
) -> list[subprocess.Popen[str]]:
    """`python arguments` as so many processes that find each other. variables: of each one's environment. options: of
    Popen."""
    together = {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        **(variables or {}),
    }
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **together),
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        for rank in range(ranks)
    ]


def run_ranks(script: Path, arguments: list[str], ranks: int) -> None:
    """Run `script` as `ranks` processes that find each other; fail with their output when one fails."""
    processes = start_ranks([str(script), *arguments], ranks, stdout=subprocess.PIPE)
    try:
        outputs = [process.communicate(timeout=DEADLINE_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()  # closes the pipe, whose warning would hide why it was killed
    for rank, (process, output) in enumerate(zip(processes, outputs, strict=True)):
        assert process.returncode == 0, f"rank {rank} ended with {process.returncode}:\n{output[-4000:]}"


class WaitingRanks:
    """Two ranks that do one plan of `train_many` after the other, for all tests of this process: a start costs more
    than most plans. What fails in a plan ends these ranks; the next plan starts others."""

    current: ClassVar[WaitingRanks | None] = None

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 as long as the ranks live
        self._ranks = start_ranks([str(TRAIN_MANY), "-"], 2, stdin=subprocess.PIPE, stdout=self._log)
        WaitingRanks.current = self

    @classmethod
    def end_current(cls) -> None:
        """Let no ranks wait any longer."""
        if cls.current is not None:
            for process in cls.current._ranks:
                process.kill()
                process.communicate()
            cls.current._log.close()
            cls.current = None

    def do(self, plan: Path) -> None:
        """Do a plan; fail with the ranks' output when one ends."""
        for process in self._ranks:
            assert process.stdin is not None
            process.stdin.write(f"{plan}\n")
            process.stdin.flush()
        done = [plan.with_suffix(f".rank{rank}.done") for rank in range(2)]
        try:
            wait_until(lambda: all(file.exists() for file in done) or self._ended(), "the end of the plan")
            self._log.seek(0)
            assert not self._ended(), f"a rank ended:\n{self._log.read()[-8000:]}"
        except BaseException:
            self.end_current()
            raise

    def _ended(self) -> bool:
        return any(process.poll() is not None for process in self._ranks)


def train_all(folder: Path, plan: list[Any], ranks: int = 2) -> None:
    """Do the trainings of a plan (tests/support/train_many.py says what it holds) one after the other on all ranks.

    What was refused is in a file of `folder`.
    """
    file = folder / f"plan-{len(list(folder.glob('plan-*.json')))}.json"
    file.write_text(json.dumps(plan))
    if ranks == 2:
        (WaitingRanks.current or WaitingRanks()).do(file)
    else:
        run_ranks(TRAIN_MANY, [str(file)], ranks)


def do_plans(do: Callable[[Path, Any], None]) -> None:
    """A rank's whole life: join the others, do the plan of the last argument, or those that standard input names."""
    from megadec.engine.zero.engine import end_process_group, start_process_group

    ranks = start_process_group()
    for name in sys.stdin if sys.argv[-1] == "-" else sys.argv[-1:]:
        plan = Path(name.strip())
        do(plan, ranks)
        plan.with_suffix(f".rank{ranks.rank}.done").touch()
    end_process_group(ranks)


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A command whose output goes to a file; it is gone at the end. options: of Popen."""
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            command,
            **{"cwd": PROJECT, "env": environment(), "stdout": stream, "stderr": subprocess.STDOUT, **options},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def deepspeed(
    arguments: list[str], ranks: int, log: Path, script: Path = PRETRAIN
) -> Iterator[subprocess.Popen[bytes]]:
    """The real launcher around a script; whatever is left of it is gone at the end."""
    command = ["deepspeed", "--num_accelerators", str(ranks), "--master_port", str(free_port()), str(script)]
    with running([*command, *arguments], log, start_new_session=True) as process:
        try:
            yield process
        finally:
            for descendant in session_of(process.pid):
                descendant.kill()


def ranks_of(session: int) -> list[psutil.Process]:
    """The training processes under a launcher, by rank."""
    ranks = [p for p in session_of(session) if len(p.cmdline()) > 2 and p.cmdline()[2] == str(PRETRAIN)]
    return sorted(ranks, key=lambda p: p.cmdline()[3])


def wait_until(condition: Callable[[], bool], what: str, log: Path | None = None, pause: float = 0.05) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
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


def run_maker(folder: Path, tokenizer: Path, shards: Path) -> Callable[..., Path]:
    """Writes a tiny run's YAML into `folder` with some sections changed, and returns its path."""

    def make(name: str, **sections: Any) -> Path:
        run = json.loads(json.dumps(TINY_RUN))
        run["name"] = name
        run["output_folder"] = str(folder / "runs")
        run["tokenizer"] = str(tokenizer)
        run["data"]["train"] = {str(shards): 1.0}
        run["evaluate"]["sets"] = {"tiny": str(shards)}
        for key, value in sections.items():
            run[key] = {**run.get(key, {}), **value} if isinstance(value, dict) else value
        run["model"]["shape"] = {**TINY_RUN["model"]["shape"], **run["model"].get("shape", {})}
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(run), encoding="utf-8")
        return path

    return make


def zero_maker(folder: Path) -> Callable[..., Path]:
    """The DeepSpeed file of a stage as the project ships it, with nothing kept whole for being small."""

    def make(name: str) -> Path:
        values = json.loads((PROJECT / "ds_configs" / f"{name}.json").read_text())
        if values["zero_optimization"]["stage"] == 3:
            values["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        path = folder / f"{name}.json"
        path.write_text(json.dumps(values))
        return path

    return make
