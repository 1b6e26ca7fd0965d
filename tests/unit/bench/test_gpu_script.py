"""gpu.sh: what fails, hangs or is missing does not keep the others from running, nor the page from being written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PROJECT

SCRIPT = PROJECT / "bench" / "gpu.sh"
KINDS = ("step", "kernels", "attention", "loss", "memory", "zero")
# In place of Python: there is no GPU; one benchmark fails, one hangs, the others are done at once; the page is real.
STAND_IN = """#!/bin/bash
case "$*" in
  *is_available*) exit 1 ;;
  *bench.page*) exec "{python}" "$@" ;;
  *bench.step*) echo 'boom' >&2; exit 3 ;;
  *bench.zero*) exec sleep 60 ;;
  *) echo '{{"rows": [{{"name": "a", "milliseconds": 1.5}}]}}' ;;
esac
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != "OUT"}
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(
        command, env={**inherited, **environment}, capture_output=True, text=True, timeout=800, check=False
    )


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    path = tmp_path / "python"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def outcomes(folder: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def test_one_that_fails_and_one_that_hangs_do_not_keep_the_others_from_the_page(tmp_path: Path, stand_in: str) -> None:
    done = run("--dry", "--seconds", "7", "--python", stand_in, OUT=str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    found = outcomes(tmp_path / "out")
    assert tuple(found) == KINDS
    assert (found["step"]["status"], found["step"]["errors"]) == ("3", "boom\n")
    assert found["zero"]["status"] == "124"
    assert found["kernels"]["status"] in ("0", "missing")
    assert "cut off at its time limit" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_what_no_time_is_left_for_is_said(tmp_path: Path, stand_in: str) -> None:
    done = run("--dry", "--seconds", "1", "--python", stand_in, "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert {one["status"] for one in outcomes(tmp_path / "out").values()} <= {"late", "missing"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--wet"], "unknown option --wet"),
        (["--output"], "--output needs a value"),
        (["--seconds", "soon"], "is not a whole number"),
        (["--wheels", "/nowhere"], "is not a folder"),
    ],
)
def test_a_wrong_request_is_refused(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_without_a_gpu_it_says_how_to_try_it(tmp_path: Path, stand_in: str) -> None:
    done = run("--python", stand_in, "--output", str(tmp_path / "out"))
    assert (done.returncode, "--dry" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_small_shapes_a_cpu_gets_to_its_end_and_every_benchmark_says_something(tmp_path: Path) -> None:
    done = run("--dry", "--seconds", "780", "--python", sys.executable, "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    found = outcomes(tmp_path / "out")
    assert {name: one["status"] for name, one in found.items()} == dict.fromkeys(KINDS, "0"), done.stderr
    assert all(one["result"] for one in found.values())
    # What comes back from a lent machine is at most eight files.
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert {"README.md", "results.json", "timeline.json.gz"} <= set(names)
    assert len(names) <= 8
