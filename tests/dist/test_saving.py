"""What happens to a save that is killed, or that the disk refuses: real processes, real signals, real errors."""

import os
import subprocess
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

from megadec.engine.checkpoint.manifest import newest_whole
from tests.support.disturb import on_full_disk, pretrain_halting, pretrain_rank
from tests.support.processes import PRETRAIN, forked, run_ranks, running, wait_until
from tests.support.tiny_runs import ENDLESS, NO_EVALUATION, TinyRuns
from tests.support.train_many import do_plan

NAMED = "it has its name"
# By the file that was flushed last: {} being the step's folder; what has its name is whole.
MOMENTS = {
    "the state is written, and no other file": r"{}\.\w+\.partial/state/rank_00000",
    "the manifest is being written": r"{}\.\w+\.partial/\.manifest",
    "everything is written": r"{}\.\w+\.partial/run\.yaml",
    NAMED: r"/checkpoints$",
}


def unfinished(runs: TinyRuns, name: str) -> list[Path]:
    return list(runs.of(name).glob("checkpoints/.step_*"))


def kill_inside_a_save(runs: TinyRuns, arguments: list[str], ranks: int, moment: str, victim: int) -> None:
    """Start the run, and kill a rank while rank 0 is halted in a save: what was whole before is whole after."""
    before = runs.checkpoints("killed") or [2]
    step = before[-1] + 2
    scratch = runs.folder / f"{moment}, killing rank {victim}"
    scratch.mkdir()
    log, marker, pipe = (scratch / name for name in ("log", "marker", "pipe"))
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    halting = [arguments, MOMENTS[moment].format(f"step_{step:08d}"), marker, pipe]
    with forked(pretrain_halting, halting, ranks, log) as processes:
        wait_until(lambda: marker.exists() or processes[0].exitcode is not None, moment, log)
        assert marker.exists(), log.read_text()
        partial = [path.name.split(".")[1] for path in unfinished(runs, "killed")]
        assert partial == [f"step_{step:08d}"] * (moment != NAMED)
        assert runs.checkpoints("killed") == before + [step] * (moment == NAMED)
        processes[victim].kill()
        processes[victim].join()
        os.close(held)
        wait_until(lambda: all(p.exitcode is not None for p in processes), "the end of every rank", log)
    assert set(before) <= set(runs.checkpoints("killed"))
    assert newest_whole(runs.of("killed") / "checkpoints") is not None


@pytest.mark.parametrize(
    ("ranks", "moments"), [(1, ["everything is written"]), pytest.param(2, MOMENTS, marks=pytest.mark.slow)]
)
def test_a_kill_of_any_rank_at_any_moment_of_a_save_costs_no_checkpoint_and_the_run_goes_on_exactly(
    runs: TinyRuns, ranks: int, moments: Iterable[str]
) -> None:
    saving = {"interval_steps": 2, "keep_last": 999}
    sections = {"train": ENDLESS, "evaluate": NO_EVALUATION, "checkpoint": saving}
    for moment, victim in product(moments, range(ranks)):
        kill_inside_a_save(runs, runs.command("killed", **sections), ranks, moment, victim)

    # The same command goes on from the newest whole one and clears the rest away.
    kept = runs.checkpoints("killed")
    last = kept[-1] + 1
    stop = f"--train.stop_at_step={last}"
    whole = runs.training("whole", "zero3", stop, train=ENDLESS, evaluate=NO_EVALUATION)
    runs.train(runs.training("killed", "zero3", stop, **sections), whole, ranks=ranks)
    assert runs.checkpoints("killed") == [*kept, last]
    assert not unfinished(runs, "killed")
    assert runs.losses("killed") == runs.losses("whole")


def test_when_one_rank_cannot_write_it_tries_again_and_then_every_rank_ends_with_the_reason(runs: TinyRuns) -> None:
    plan = []
    for name, asynchronous in (("behind", True), ("waiting", False)):
        saving = {"retries": 1, "retry_pause_seconds": 0.1, "asynchronous": asynchronous, "interval_steps": 1}
        training = runs.training(name, train={"steps": 3}, evaluate=NO_EVALUATION, checkpoint=saving)
        plan.append({**training, "refused": "StorageError"})
    run_ranks(on_full_disk, [do_plan, runs.plan_file(plan), 1], 2, log := runs.folder / "log")
    assert log.read_text().count("The state stays in memory") == len(plan)
    for name in ("behind", "waiting"):
        first, second = runs.refusals(name, "StorageError")
        assert "rank 1 could not save" in first
        assert second in first
        assert "cannot write" in second
        assert not list((runs.of(name) / "checkpoints").iterdir())


def test_a_disk_that_is_freed_in_time_costs_nothing(runs: TinyRuns) -> None:
    again = {"retries": 1000, "retry_pause_seconds": 0.1, "interval_steps": 2, "keep_last": 9}
    arguments = runs.command("freed", train={"steps": 6}, evaluate=NO_EVALUATION, checkpoint=again)
    run_ranks(on_full_disk, [pretrain_rank, arguments, 0, (runs.of("freed"), 4)], 1, log := runs.folder / "log")
    # Training went on while the first save was refused, and waited for it when the next one was due.
    assert "The state stays in memory" in log.read_text()
    assert runs.checkpoints("freed") == [2, 4, 6]
    assert not unfinished(runs, "freed")
    saves = {line["step"]: line for line in runs.metrics("freed", "checkpoint")}
    assert sorted(saves) == [2, 4, 6]
    assert saves[2]["seconds"] > saves[2]["stall_seconds"] > 0.4
    assert len(runs.losses("freed")) == 6


@pytest.mark.slow
def test_a_disk_without_a_byte_left_stops_nothing_until_the_last_retry(tmp_path: Path, runs: TinyRuns) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may make a small disk")
    try:
        again = {"retries": 1000, "retry_pause_seconds": 0.1, "interval_steps": 3, "keep_last": 9}
        board = {"tensorboard": True}
        command = runs.command("filled", train={"steps": 6}, evaluate=NO_EVALUATION, checkpoint=again, metrics=board)
        log, ballast = tmp_path / "log", folder / "ballast"
        with running([sys.executable, str(PRETRAIN), *command], log) as process:
            wait_until(lambda: bool(runs.metrics("filled")), "the first step", log, pause=0.005)
            fill(ballast)
            wait_until(lambda: "The state stays in memory" in log.read_text(), "a refusal", log)
            ballast.unlink()
            assert process.wait(120) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        assert runs.checkpoints("filled") == [3, 6]
        assert newest_whole(runs.of("filled") / "checkpoints") is not None
        assert not unfinished(runs, "filled")
        assert len(runs.losses("filled")) == 6
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
