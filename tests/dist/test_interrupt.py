"""What happens to a run that is told to stop, or killed: through the real launcher, with real signals."""

import os
import signal
from pathlib import Path

from megadec.common.processes import session_of
from tests.support.disturb import pretrain_rank
from tests.support.processes import codes_of, deepspeed, forked, wait_until
from tests.support.tiny_runs import ENDLESS, NO_EVALUATION, TinyRuns

GRACE_SECONDS = 30.0


def test_ctrl_c_or_the_launchers_end_ends_the_run_with_a_checkpoint_and_the_same_command_goes_on_exactly(
    tmp_path: Path, runs: TinyRuns
) -> None:
    log, rare = tmp_path / "log", {"interval_steps": 1000}
    runs.train(runs.training("before", train={**ENDLESS, "stop_at_step": 1}, evaluate=rare))
    # It begins from a checkpoint of another run, and goes on from its own when it is given again.
    named = f"--checkpoint.resume={runs.checkpoint('before', 1)}"
    arguments = [*runs.command("stopped", train=ENDLESS, evaluate=rare), named]

    # As a terminal sends it: to every process.
    with deepspeed(arguments, 2, log) as launcher:
        wait_until(lambda: len(runs.metrics("stopped")) >= 3, "the third step", log)
        os.killpg(launcher.pid, signal.SIGINT)
        wait_until(lambda: not session_of(launcher.pid), "the end of every rank", log)
    [first] = runs.checkpoints("stopped")
    assert first == 1 + len(runs.metrics("stopped")) >= 3
    said = log.read_text()
    assert said.count("stopping (SIGINT)") == 1
    # Not where it stands: the launcher's own traceback may come before it or after it.
    assert said.count(f"stopped at step {first} (SIGINT); the same command goes on from there") == 1

    # SIGTERM to `deepspeed` kills it alone and tells nobody: the ranks find out that they are orphans.
    with deepspeed(arguments, 2, log) as launcher:
        wait_until(lambda: len(runs.metrics("stopped")) >= first + 2, "three steps more", log)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(60) == -signal.SIGTERM
        wait_until(lambda: not session_of(launcher.pid), "the end of every rank", log)
    assert "the launcher is gone" in log.read_text()
    second = runs.checkpoints("stopped")[-1]
    assert second == 1 + len(runs.metrics("stopped")) >= first + 3

    # Asked before its first step, a run ends at once, and only once.
    asked = runs.of("early") / "stop"
    asked.parent.mkdir()
    asked.touch()
    runs.train(
        runs.training("whole", train={**ENDLESS, "stop_at_step": second}, evaluate=rare),
        runs.training("early", train={"steps": 1}),
    )
    assert [line["loss"] for line in runs.metrics("stopped")] == runs.losses("whole")[1:]
    assert runs.checkpoints("early") == []
    assert not asked.exists()


def test_a_launcher_that_is_killed_before_its_ranks_have_begun_leaves_no_run_behind(
    tmp_path: Path, runs: TinyRuns
) -> None:
    log = tmp_path / "log"

    def started(pid: int) -> bool:
        return any("deepspeed.launcher.launch" in process.cmdline() for process in session_of(pid))

    with deepspeed(runs.command("early", train=ENDLESS, evaluate=NO_EVALUATION), 2, log) as launcher:
        wait_until(lambda: started(launcher.pid), "the launcher of the ranks", log)
        launcher.kill()
        wait_until(lambda: not session_of(launcher.pid), "the end of every rank", log)
    assert "stopped before the first step (the launcher is gone)" in log.read_text()
    assert runs.metrics("early") == []


def test_a_signal_in_an_evaluation_and_in_a_save_ends_the_run_within_the_grace_period_with_one_whole_checkpoint(
    tmp_path: Path, runs: TinyRuns
) -> None:
    log = tmp_path / "log"
    evaluate = {"interval_steps": 2, "windows": 300, "micro_batch_size": 1}
    with forked(pretrain_rank, [runs.command("asked", train=ENDLESS, evaluate=evaluate)], 2, log) as ranks:
        wait_until(lambda: len(runs.metrics("asked")) == 2, "the second step", log, pause=0.005)
        os.kill(ranks[1].pid, signal.SIGUSR1)
        assert codes_of(ranks, log, GRACE_SECONDS) == [0, 0], log.read_text()[-4000:]
    assert runs.checkpoints("asked") == [2]
    manifest = runs.manifest("asked", 2)
    assert (manifest["step"], manifest["evaluated_step"]) == (2, 0), "the signal came after the evaluation"

    def partial() -> list[Path]:
        return list(runs.of("asked").glob("checkpoints/.step_*.partial"))

    often = {"interval_steps": 1, "keep_last": 99}
    saving = runs.command("asked", train=ENDLESS, evaluate=NO_EVALUATION, checkpoint=often)
    with forked(pretrain_rank, [saving], 2, log) as ranks:
        wait_until(lambda: len(runs.checkpoints("asked")) >= 3, "two saves", log)
        wait_until(lambda: bool(partial()), "a save under way", log, pause=0.0005)
        os.kill(ranks[1].pid, signal.SIGTERM)
        assert codes_of(ranks, log, GRACE_SECONDS) == [0, 0], log.read_text()[-4000:]
    last = runs.checkpoints("asked")[-1]
    assert last == len(runs.metrics("asked")) == runs.manifest("asked", last)["step"]
    assert log.read_text().count(f"saved {runs.checkpoint('asked', last)}") == 1
    assert not partial()


def test_a_second_start_is_told_who_has_the_folder_and_takes_it_over_when_that_one_is_dead(
    tmp_path: Path, runs: TinyRuns
) -> None:
    log = tmp_path / "log"
    endless = runs.command("owned", train=ENDLESS, evaluate=NO_EVALUATION, checkpoint={"interval_steps": 2})
    with forked(pretrain_rank, [endless], 2, log) as ranks:
        wait_until(lambda: bool(runs.checkpoints("owned")), "a save", log)
        with forked(pretrain_rank, [endless], 1, tmp_path / "second") as second:
            assert codes_of(second, tmp_path / "second") == [2]
        said = (tmp_path / "second").read_text()
        assert f"error: {runs.of('owned')} belongs to a run that trains now" in said
        assert f'"process": {ranks[0].pid}' in said
    # Its ranks are killed here.
    before = runs.checkpoints("owned")[-1]
    runs.train(runs.training("owned", train={**ENDLESS, "stop_at_step": before + 20}, evaluate=NO_EVALUATION))
    assert runs.checkpoints("owned")[-1] == before + 20
