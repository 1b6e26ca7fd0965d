"""Real processes for the distributed tests: ranks started by hand, and the deepspeed launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from megadec.common.processes import free_port, session_of
from tests.support import PROJECT

PRETRAIN = PROJECT / "launch" / "pretrain.py"
# Scripts that several ranks run: many short trainings, or requests, in one process, as imports cost more than they do.
TRAIN_MANY, TRAIN_GUARDED, ASK_MANY, END_MANY, AGREE_ON_DATA = (
    Path(__file__).parent / f"{name}.py"
    for name in ("train_many", "train_guarded", "ask_many", "end_many", "agree_on_data")
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
    inherited = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
    return {**inherited, "PATH": path, "OMP_NUM_THREADS": "1", **more}


def run_ranks(script: Path, arguments: list[str], ranks: int) -> None:
    """Run `script` as `ranks` processes that find each other; fail with their output when one fails."""
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=environment(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=port
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        outputs = [process.communicate(timeout=DEADLINE_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()  # closes the pipe, whose warning would hide why it was killed
    for rank, (process, output) in enumerate(zip(processes, outputs, strict=True)):
        assert process.returncode == 0, f"rank {rank} ended with {process.returncode}:\n{output[-4000:]}"


@contextmanager
def deepspeed(
    arguments: list[str], ranks: int, log: Path, script: Path = PRETRAIN
) -> Iterator[subprocess.Popen[bytes]]:
    """The real launcher around a script; whatever is left of it is gone at the end."""
    command = ["deepspeed", "--num_accelerators", str(ranks), "--master_port", str(free_port()), str(script)]
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            [*command, *arguments], env=environment(), stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            for descendant in session_of(process.pid):
                descendant.kill()
            process.wait()


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
