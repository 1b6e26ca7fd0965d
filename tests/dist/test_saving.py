"""What happens to a save that is killed, or that the disk refuses: real processes, real signals, real errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import pytest

from megadec.engine.checkpoint.manifest import newest_whole
from tests.support.processes import (
    PRETRAIN,
    TRAIN_MANY,
    environment,
    losses_of,
    metrics_of,
    run_ranks,
    running,
    start_ranks,
    train_all,
    wait_until,
)

ENDLESS = {"steps": 5000, "global_batch_size": 8, "micro_batch_size": 2}
# Rank 0 halts when it has flushed the file of a save that MOMENT names, until the other end of the pipe is closed.
HALTING_DISK = """
import os, re, runpy, sys
flush, moment, marker = os.fsync, os.environ["MOMENT"], os.environ["MARKER"]
def halt(descriptor):
    flush(descriptor)
    file = os.readlink(f"/proc/self/fd/{descriptor}")
    if os.environ["RANK"] == "0" and re.search(moment, file) and not os.path.exists(marker):
        with open(os.environ["PIPE"]) as pipe:
            open(marker, "w").close()
            pipe.read()
os.fsync = halt
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
NAMED = "it has its name"
# By the file that was flushed last, {} being the step's folder; what has its name is whole.
MOMENTS = {
    "the state is written, and no other file": r"{}\.\w+\.partial/state/rank_00000",
    "the manifest is being written": r"{}\.\w+\.partial/\.manifest",
    "everything is written": r"{}\.\w+\.partial/run\.yaml",
    NAMED: r"/checkpoints$",
}
# A limit on the size of a file is what a test without a disk of its own can have: writes fail half-way. The ranks that
# FULL names have it, until the run has done the steps that FREED names.
FULL_DISK = """
import json, os, pathlib, resource, runpy, sys, threading, time
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
if os.environ.get("RANK", "0") in os.environ["FULL"].split():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, unlimited[1]))
def free():
    metrics, step = json.loads(os.environ["FREED"])
    while not pathlib.Path(metrics).exists() or pathlib.Path(metrics).read_text().count('"train"') < step:
        time.sleep(0.02)
    time.sleep(0.5)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
if "FREED" in os.environ:
    threading.Thread(target=free, daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (folder / "checkpoints").glob("step_*"))


def unfinished(folder: Path) -> list[Path]:
    return list((folder / "checkpoints").glob(".step_*"))


def kill_inside_a_save(folder: Path, scratch: Path, arguments: list[str], ranks: int, moment: str, victim: int) -> None:
    """Start the run, and kill a rank while rank 0 is halted in a save: what was whole before is whole after."""
    before = checkpoints(folder) or [2]
    step = before[-1] + 2
    log, marker, pipe = (scratch / name for name in ("log", "marker", "pipe"))
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    variables = {"MOMENT": MOMENTS[moment].format(f"step_{step:08d}"), "MARKER": str(marker), "PIPE": str(pipe)}
    with open(log, "ab") as stream:
        halting = ["-c", HALTING_DISK, str(PRETRAIN), *arguments]
        processes = start_ranks(halting, ranks, stdout=stream, variables=variables)
    try:
        wait_until(lambda: marker.exists() or processes[0].poll() is not None, moment, log)
        assert marker.exists(), log.read_text()
        assert [path.name.split(".")[1] for path in unfinished(folder)] == [f"step_{step:08d}"] * (moment != NAMED)
        assert checkpoints(folder) == before + [step] * (moment == NAMED)
        processes[victim].kill()
        processes[victim].wait()
        os.close(held)
        wait_until(lambda: all(process.poll() is not None for process in processes), "the end of every rank", log)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert set(before) <= set(checkpoints(folder))
    assert newest_whole(folder / "checkpoints") is not None


def test_a_kill_inside_a_save_costs_no_checkpoint_and_the_run_goes_on_exactly(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    check_kills(tmp_path, make_run, zero_file, ranks=1, moments=["everything is written"])


@pytest.mark.slow
def test_a_kill_of_any_rank_at_any_moment_of_a_save_costs_no_checkpoint(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    check_kills(tmp_path, make_run, zero_file, ranks=2, moments=MOMENTS)


def check_kills(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path], ranks: int, moments: Iterable[str]
) -> None:
    saving = {"interval_steps": 2, "keep_last": 999}
    run, zero = make_run("killed", train=ENDLESS, evaluate={"sets": {}}, checkpoint=saving), str(zero_file("zero3"))
    folder = tmp_path / "runs" / "killed"
    for moment, victim in product(moments, range(ranks)):
        scratch = tmp_path / f"{moment}, killing rank {victim}"
        scratch.mkdir()
        kill_inside_a_save(folder, scratch, ["--deepspeed", zero, "--config", str(run)], ranks, moment, victim)

    # The same command goes on from the newest whole one and clears the rest away.
    kept = checkpoints(folder)
    last = kept[-1] + 1
    whole = make_run("whole", train={**ENDLESS, "stop_at_step": last}, evaluate={"sets": {}})
    trainings = [{"run": str(run), "options": [f"--train.stop_at_step={last}"]}, {"run": str(whole)}]
    train_all(tmp_path, [{**training, "deepspeed": zero} for training in trainings], ranks)
    assert checkpoints(folder) == [*kept, last]
    assert not unfinished(folder)
    assert losses_of(folder) == losses_of(tmp_path / "runs" / "whole")


def train_on_full_disk(run: Path, zero: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FULL_DISK, str(PRETRAIN), "--deepspeed", str(zero), "--config", str(run)]
    return subprocess.run(command, env=environment(FULL="0", **variables), capture_output=True, text=True, check=False)


def test_a_full_disk_is_one_error_after_the_last_retry_and_leaves_no_checkpoint(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    again = {"retries": 1, "retry_pause_seconds": 0.1}
    run = make_run("full", train={"stop_at_step": 1}, evaluate={"sets": {}}, checkpoint=again)
    done = train_on_full_disk(run, zero_file("zero3"))
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "cannot write" in errors[0]
    assert done.stderr.count("The state stays in memory") == 1
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs" / "full" / "checkpoints").iterdir())


def test_when_one_rank_cannot_write_every_rank_ends_with_the_reason(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    plan = []
    for name, asynchronous in (("behind", True), ("waiting", False)):
        saving = {"retries": 0, "asynchronous": asynchronous, "interval_steps": 1}
        run = make_run(name, train={"steps": 3}, evaluate={"sets": {}}, checkpoint=saving)
        plan.append({"run": str(run), "deepspeed": str(zero_file("zero3")), "refused": "StorageError"})
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    script = tmp_path / "full.py"
    script.write_text(f"import os\nos.environ['FULL'] = '1'\n{FULL_DISK}")
    run_ranks(script, [str(TRAIN_MANY), str(tmp_path / "plan.json")], ranks=2)
    for name in ("behind", "waiting"):
        first, second = ((tmp_path / f"{name}.rank{rank}.StorageError").read_text() for rank in (0, 1))
        assert "rank 1 could not save" in first
        assert second in first
        assert "cannot write" in second
        assert not list((tmp_path / "runs" / name / "checkpoints").iterdir())


def test_a_disk_that_is_freed_in_time_costs_nothing(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    again = {"retries": 1000, "retry_pause_seconds": 0.1, "interval_steps": 2, "keep_last": 9}
    run = make_run("freed", train={"steps": 6}, evaluate={"sets": {}}, checkpoint=again)
    folder = tmp_path / "runs" / "freed"
    freed = json.dumps([str(folder / "metrics.jsonl"), 4])
    done = train_on_full_disk(run, zero_file("zero3"), FREED=freed)
    assert done.returncode == 0, done.stderr
    # Training went on while the first save was refused, and waited for it when the next one was due.
    assert "The state stays in memory" in done.stderr
    assert checkpoints(folder) == [2, 4, 6]
    assert not unfinished(folder)
    saves = {line["step"]: line for line in metrics_of(folder, "checkpoint")}
    assert sorted(saves) == [2, 4, 6]
    assert saves[2]["seconds"] > saves[2]["stall_seconds"] > 0.4
    assert len(losses_of(folder)) == 6


@pytest.mark.slow
def test_a_disk_without_a_byte_left_stops_nothing_until_the_last_retry(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may make a small disk")
    try:
        again = {"retries": 1000, "retry_pause_seconds": 0.1, "interval_steps": 3, "keep_last": 9}
        run = make_run("filled", train={"steps": 6}, evaluate={"sets": {}}, checkpoint=again)
        command = [sys.executable, str(PRETRAIN), "--deepspeed", str(zero_file("zero3")), "--config", str(run)]
        log, ballast = tmp_path / "log", folder / "ballast"
        with running(command, log) as process:
            wait_until(lambda: bool(metrics_of(folder / "filled")), "the first step", log, pause=0.005)
            fill(ballast)
            wait_until(lambda: "The state stays in memory" in log.read_text(), "a refusal", log)
            ballast.unlink()
            assert process.wait(120) == 0, log.read_text()
        assert checkpoints(folder / "filled") == [3, 6]
        assert newest_whole(folder / "filled" / "checkpoints") is not None
        assert not unfinished(folder / "filled")
        assert len(losses_of(folder / "filled")) == 6
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    """Take every byte that is left."""
    with open(file, "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
