"""Where figures go beside metrics.jsonl, and what is said where a library is missing."""

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from megadec.common.errors import MissingExtraError
from megadec.decoder.flops import model_flops
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.options import MetricsOptions
from megadec.engine.metrics.reports import Saved
from megadec.engine.metrics.trackers import SERVICES, SwanLab, check_trackers, identity
from tests.support import PROJECT
from tests.support.processes import environment
from tests.unit.engine.metrics.test_logger import REPORT, SHAPE, open_metrics, record


def test_tensorboard_gets_every_number_of_the_line(tmp_path: Path) -> None:
    line = record(tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    numbers = {key for key, value in line.items() if isinstance(value, int | float) and key != "step"}
    assert set(events.Tags()["scalars"]) == {f"train/{key}" for key in numbers}
    [loss] = events.Scalars("train/loss")
    assert (loss.step, loss.value) == (1, 6.5)


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
def test_a_missing_library_is_named_with_its_extra_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=rf"{name} is not installed.*megadec\[{name}\]"):
        check_trackers(MetricsOptions(**{name: True}))


def test_every_start_of_a_run_has_one_identity_and_another_run_another(tmp_path: Path) -> None:
    assert identity(tmp_path / "a") == identity(tmp_path / "b" / ".." / "a")
    assert identity(tmp_path / "a") != identity(tmp_path / "b")


def test_the_bar_shows_loss_rate_share_of_the_peak_and_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, peak_flops=model_flops(SHAPE, 1000, 16000))
    said = capsys.readouterr().err
    assert "\r" not in said, "fragments, where there is no terminal"
    [shown] = said.splitlines()
    for part in ("1/2", "loss=6.500", "lr=1.00e-03", "grad_norm=2.00", "tokens_per_second=500", "mfu=50.0%", "<"):
        assert part in shown


def in_a_process(call: str) -> None:
    """Call a function of this file in a new process: the libraries change signal handlers and standard output."""
    program = f"from pathlib import Path; from {__name__} import *; {call}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300, env=environment(PYTHONPATH=str(PROJECT)))


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
def test_offline_a_library_keeps_to_the_folder_of_the_run(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    folder = tmp_path / "run"
    folder.mkdir()
    in_a_process(f"record(Path({str(folder)!r}), peak_flops=1e9, offline=True, {name}=True)")
    assert [path for path in (folder / name).rglob("*") if path.is_file() and path.stat().st_size > 0]
    assert json.loads((folder / "metrics.jsonl").read_text())["loss"] == 6.5


class GrowingSteps:
    """A run of W&B 0.31, as far as it matters here: what comes with an earlier step is ignored."""

    def __init__(self) -> None:
        self.step_metrics: dict[str, str] = {}
        self.rows: list[dict[str, float]] = []
        self._step = 0

    def define_metric(self, name: str, step_metric: str) -> None:
        self.step_metrics[name] = step_metric

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        step = self._step + 1 if step is None else step
        if step >= self._step:
            self._step = step
            self.rows.append(dict(values))

    def finish(self) -> None:
        pass


def test_wandb_keeps_the_figures_of_a_save_that_is_whole_some_steps_later_and_of_a_step_that_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = GrowingSteps()
    library = SimpleNamespace(init=lambda **_: run, Settings=lambda **_: None)
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: library)
    with open_metrics(tmp_path, wandb=True) as metrics:
        for step in (1, 2, 3):
            metrics.record_step(replace(REPORT, step=step), tokens=1000, seconds=2.0, data_seconds=0.25)
        metrics.record_save(Saved(Path("step_1"), 1, stall_seconds=0.5, seconds=4.0, bytes=100, asynchronous=True))
        metrics.record_step(replace(REPORT, step=2), tokens=1000, seconds=2.0, data_seconds=0.25)
    assert run.step_metrics == {"*": "step"}
    assert [row["step"] for row in run.rows] == [1, 2, 3, 1, 2]
    assert run.rows[3]["checkpoint/seconds"] == 4.0
    assert run.rows[4]["train/loss"] == 6.5


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
def test_a_missing_key_is_told_at_the_opening_and_the_service_is_not_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, asked = GrowingSteps(), list[str]()

    def init(mode: str, **_: Any) -> GrowingSteps:
        asked.append(mode)
        return run

    monkeypatch.setitem(sys.modules, name, SimpleNamespace(init=init, Settings=lambda **_: None, finish=lambda: None))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace())
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in (*SERVICES[name].variables, "NETRC", "SWANLAB_SAVE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    variable = SERVICES[name].variables[0]
    netrc = Path(SERVICES[name].files[1]).expanduser()
    netrc.parent.mkdir(exist_ok=True)
    for how in ("nothing", "variable", "login"):
        if how == "variable":
            monkeypatch.setenv(variable, "secret")
        if how == "login":
            monkeypatch.delenv(variable)
            netrc.write_text(f"machine api.{name}.ai login user password secret")
        (tmp_path / how).mkdir()
        check_trackers(MetricsOptions(**{name: True}))
        said = capsys.readouterr().err
        assert (f"metrics.{name}: this machine has no key for it (set {variable} or `{name} login`)" in said) == (
            how == "nothing"
        )
        record(tmp_path / how, **{name: True})
    assert asked == ["offline", "online", "online"]


def test_a_full_disk_under_tensorboard_is_one_warning_without_a_traceback_and_the_lines_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class OnFullDisk(RecordWriter):  # type: ignore[misc]
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer.RecordWriter", OnFullDisk)
    printed = list[threading.ExceptHookArgs]()
    monkeypatch.setattr(threading, "excepthook", printed.append)
    with open_metrics(tmp_path, tensorboard=True) as metrics:
        for step in range(1, 100):
            metrics.record_step(replace(REPORT, step=step), tokens=1000, seconds=2.0, data_seconds=0.25)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 99
    assert capsys.readouterr().err.count("No space left") == 1
    assert not printed


def test_a_service_that_is_not_reached_is_written_offline_and_one_that_does_not_open_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, asked, broken = GrowingSteps(), list[str](), {"online"}

    def init(mode: str, **_: Any) -> GrowingSteps:
        asked.append(mode)
        if mode in broken:
            raise ConnectionError("api.wandb.ai: no route to host")
        return run

    library = SimpleNamespace(init=init, Settings=lambda **_: None)
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: library)
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    for rows in (1, 0):
        asked.clear()
        run.rows.clear()
        (tmp_path / str(rows)).mkdir()
        record(tmp_path / str(rows), wandb=True)
        assert asked == ["online", "offline"]
        assert len(run.rows) == rows
        broken.add("offline")
    assert capsys.readouterr().err.count("no route to host") == 3


class TakesHooks:
    """SwanLab 0.10, as far as it matters here: a run of its takes two hooks, and ends itself when they are called."""

    def __init__(self) -> None:
        self.alive, self.rows = True, list[int]()
        self._interrupted, self._uncaught = signal.getsignal(signal.SIGINT), sys.excepthook
        self._is_main_thread = threading.current_thread() is threading.main_thread()
        sys.excepthook = self.end
        if self._is_main_thread:
            signal.signal(signal.SIGINT, self.end)

    def end(self, *_: Any) -> None:
        self.alive = False

    def log(self, values: Mapping[str, float], step: int) -> None:
        if not self.alive:
            raise RuntimeError("`run.log()` requires an active Run")
        self.rows.append(step)

    def finish(self) -> None:
        self.end()
        sys.excepthook = self._uncaught
        if self._is_main_thread:
            signal.signal(signal.SIGINT, self._interrupted)


def log_on_after_an_interrupt(folder: Path) -> None:
    """Ctrl-C between two steps of a run that SwanLab sees."""
    uncaught = sys.excepthook
    with Interrupt() as interrupt:
        tracker = SwanLab(folder, MetricsOptions(offline=True), {})
        tracker.log({"train/loss": 6.5}, 1)
        os.kill(os.getpid(), signal.SIGINT)
        tracker.log({"train/loss": 6.4}, 2)
        assert interrupt.requested
        assert sys.excepthook is uncaught
        tracker.close()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "a second Ctrl-C ends at once"
        assert sys.excepthook is uncaught


def test_an_interrupt_is_the_runs_own_and_swanlab_can_be_told_of_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[TakesHooks] = []

    def init(**_: Any) -> TakesHooks:
        runs.append(TakesHooks())
        return runs[-1]

    monkeypatch.setitem(sys.modules, "swanlab", SimpleNamespace(init=init, finish=lambda: runs[-1].finish()))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    log_on_after_an_interrupt(tmp_path)
    assert runs[0].rows == [1, 2]
    # As in a worker of Ray: no handler can be set there, and none is.
    thread = threading.Thread(target=lambda: SwanLab(tmp_path, MetricsOptions(), {}).close())
    thread.start()
    thread.join()
    assert len(runs) == 2


def test_the_real_swanlab_can_be_told_of_the_last_step_after_an_interrupt(tmp_path: Path) -> None:
    pytest.importorskip("swanlab")
    in_a_process(f"log_on_after_an_interrupt(Path({str(tmp_path)!r}))")
