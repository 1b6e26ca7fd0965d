"""How long a wrong request waits for its answer, and what of that is the launcher's and torch's.

    python -m bench.startup [--rounds 5]        # --rounds 1 for a first look

Out: one JSON object. `parts`: seconds and CPU seconds (medians of rounds that take turns) of Python importing torch
and DeepSpeed, of `launch/pretrain.py` refusing an unknown option by itself, of `deepspeed` around an empty script, and
of `deepspeed` around that refusal, to the error's line (`answered`) and to its end. `bars`: seconds to the answer by
itself and under `deepspeed`. Nothing is written. Figures are of a quiet machine only when `load` is small.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import ROOT, environment
from megadec.common.config import parse
from megadec.common.errors import TrainingError, check_range, run_main
from megadec.common.processes import free_port

WRONG = ("launch/pretrain.py", "--deepspeed", "ds_configs/zero3.json", "--seeed", "3")
LAUNCHER = "deepspeed around an empty script"
BY_ITSELF, LAUNCHED = "a wrong request by itself", "a wrong request under deepspeed"


@dataclass(frozen=True)
class StartupOptions:
    """rounds: how often each is started. ranks: under `deepspeed`."""

    rounds: int = 5
    ranks: int = 2

    def __post_init__(self) -> None:
        check_range(self, "", "rounds", "ranks", least=1)


@dataclass(frozen=True)
class Start:
    """One start: seconds to the line that begins with `error:` (None: it said none) and to the end, and CPU seconds."""

    answered: float | None
    seconds: float
    cpu_seconds: float


def start(command: Sequence[str]) -> Start:
    """Run a command to its end. Raises TrainingError where it fails without a line that says why."""
    before, began, answered, said = os.times(), time.perf_counter(), None, ""
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if line.startswith("error: ") and answered is None:
                answered = time.perf_counter() - began
    after = os.times()
    if process.returncode and answered is None:
        raise TrainingError(f"{' '.join(command)} ended with {process.returncode}: {said[-2000:]}")
    cpu_seconds = after.children_user - before.children_user + after.children_system - before.children_system
    return Start(answered, time.perf_counter() - began, cpu_seconds)


def commands(ranks: int) -> dict[str, list[str]]:
    """What is started, by name."""
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", str(ranks)]
    launcher += ["--master_port", str(free_port())]
    return {
        "import torch": [sys.executable, "-c", "import torch"],
        "import deepspeed": [sys.executable, "-c", "import deepspeed"],
        BY_ITSELF: [sys.executable, *WRONG],
        LAUNCHER: [*launcher, os.devnull],
        LAUNCHED: [*launcher, *WRONG],
    }


def measure(options: StartupOptions) -> dict[str, Any]:
    """Start everything by turns, and take the medians."""
    todo = commands(options.ranks)
    found: dict[str, list[Start]] = {name: [] for name in todo}
    for _ in range(options.rounds):
        for name, command in todo.items():
            found[name].append(start(command))
    parts: dict[str, dict[str, float]] = {}
    for name, starts in found.items():
        answers = [one.answered for one in starts if one.answered is not None]
        row = {"answered": statistics.median(answers)} if answers else {}
        row["seconds"] = statistics.median(one.seconds for one in starts)
        row["cpu_seconds"] = statistics.median(one.cpu_seconds for one in starts)
        parts[name] = {key: round(value, 2) for key, value in row.items()}
    answers_in = {"answered_by_itself": parts[BY_ITSELF], "answered_under_deepspeed": parts[LAUNCHED]}
    bars = {f"{name}_seconds": row["answered"] for name, row in answers_in.items()}
    return {"bench": "startup", "environment": environment(), "rounds": options.rounds, "parts": parts, "bars": bars}


def main(argv: Sequence[str]) -> None:
    """The command line."""
    options = parse(StartupOptions, argv, description="Time the answer to a wrong request.", program="bench.startup")
    print(json.dumps(measure(options), indent=1))


if __name__ == "__main__":
    run_main(main)
