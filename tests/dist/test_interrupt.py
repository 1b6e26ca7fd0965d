"""What happens to a run that is told to stop, or killed: through the real launcher, with real signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from megadec.common.processes import session_of
from megadec.engine.checkpoint.manifest import read_manifest
from tests.support.processes import deepspeed, losses_of, metrics_of, ranks_of, train_all, wait_until

# More steps than a test can wait for: only a signal ends the run.
ENDLESS = {"steps": 5000, "global_batch_size": 8, "micro_batch_size": 2}


GRACE_SECONDS = 30.0


def partial_in(folder: Path) -> list[Path]:
    """Checkpoints that are being written."""
    return list((folder / "checkpoints").glob(".step_*.partial"))


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (folder / "checkpoints").glob("step_*"))


def test_a_signal_to_any_process_ends_the_run_with_a_checkpoint_and_the_next_start_goes_on_exactly(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    zero = str(zero_file("zero3"))
    folder, log = tmp_path / "runs" / "stopped", tmp_path / "log"
    run = make_run("stopped", train=ENDLESS, evaluate={"interval_steps": 1000})
    arguments = ["--deepspeed", zero, "--config", str(run)]

    with deepspeed(arguments, 2, log) as launcher:
        wait_until(lambda: len(metrics_of(folder)) >= 3, "the third step", log)
        os.kill(ranks_of(launcher.pid)[1].pid, signal.SIGTERM)
        assert launcher.wait(GRACE_SECONDS) == 0, log.read_text()[-4000:]
    [first] = checkpoints(folder)
    assert first == len(metrics_of(folder)) >= 3

    # SIGTERM to `deepspeed` kills it alone and tells nobody: the ranks find out that they are orphans.
    with deepspeed(arguments, 2, log) as launcher:
        wait_until(lambda: len(metrics_of(folder)) >= first + 3, "three steps more", log)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(60) == -signal.SIGTERM
        wait_until(lambda: not session_of(launcher.pid), "the end of every rank", log)
    assert "the launcher is gone" in log.read_text()
    second = checkpoints(folder)[-1]
    assert second == len(metrics_of(folder)) >= first + 3

    whole = make_run("whole", train={**ENDLESS, "stop_at_step": second}, evaluate={"interval_steps": 1000})
    # Asked before its first step, a run ends at once, and only once.
    early, asked = make_run("early", train={"steps": 1}), tmp_path / "runs" / "early" / "stop"
    asked.parent.mkdir()
    asked.touch()
    train_all(tmp_path, [{"run": str(run), "deepspeed": zero} for run in (whole, early)])
    assert losses_of(folder) == losses_of(tmp_path / "runs" / "whole")
    assert checkpoints(asked.parent) == []
    assert not asked.exists()


def test_a_launcher_that_is_killed_before_its_ranks_have_begun_leaves_no_run_behind(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    log = tmp_path / "log"
    run = make_run("early", train=ENDLESS, evaluate={"sets": {}})

    def started(pid: int) -> bool:
        return any("deepspeed.launcher.launch" in process.cmdline() for process in session_of(pid))

    with deepspeed(["--deepspeed", str(zero_file("zero3")), "--config", str(run)], 2, log) as launcher:
        wait_until(lambda: started(launcher.pid), "the launcher of the ranks", log)
        launcher.kill()
        wait_until(lambda: not session_of(launcher.pid), "the end of every rank", log)
    assert "stopped before the first step (the launcher is gone)" in log.read_text()
    assert metrics_of(tmp_path / "runs" / "early") == []


def test_a_signal_in_an_evaluation_and_in_a_save_ends_the_run_within_the_grace_period_with_one_whole_checkpoint(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    folder, log = tmp_path / "runs" / "asked", tmp_path / "log"
    arguments = ["--deepspeed", str(zero_file("zero3"))]
    evaluate = {"interval_steps": 2, "windows": 300, "micro_batch_size": 1}
    run = make_run("asked", train=ENDLESS, evaluate=evaluate)
    with deepspeed([*arguments, "--config", str(run)], 2, log) as launcher:
        wait_until(lambda: len(metrics_of(folder)) == 2, "the second step", log, pause=0.005)
        os.kill(ranks_of(launcher.pid)[1].pid, signal.SIGUSR1)
        assert launcher.wait(GRACE_SECONDS) == 0, log.read_text()[-4000:]
    assert checkpoints(folder) == [2]
    manifest = read_manifest(folder / "checkpoints" / "step_00000002")
    assert (manifest["step"], manifest["evaluated_step"]) == (2, 0), "the signal came after the evaluation"

    saves = make_run("asked", train=ENDLESS, evaluate={"sets": {}}, checkpoint={"interval_steps": 1, "keep_last": 99})
    with deepspeed([*arguments, "--config", str(saves)], 2, log) as launcher:
        wait_until(lambda: len(checkpoints(folder)) >= 3, "two saves", log)
        victim = ranks_of(launcher.pid)[1].pid
        wait_until(lambda: bool(partial_in(folder)), "a save under way", log, pause=0.0005)
        os.kill(victim, signal.SIGTERM)
        assert launcher.wait(GRACE_SECONDS) == 0, log.read_text()[-4000:]
    last = checkpoints(folder)[-1]
    assert last == len(metrics_of(folder))
    assert read_manifest(folder / "checkpoints" / f"step_{last:08d}")["step"] == last
    assert log.read_text().count(f"saved {folder}/checkpoints/step_{last:08d}") == 1
    assert not partial_in(folder)
