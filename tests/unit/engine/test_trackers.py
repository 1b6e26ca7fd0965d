"""Where figures go beside metrics.jsonl, and what is said where a library is missing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megadec.common.errors import MissingExtraError
from megadec.decoder.flops import model_flops
from megadec.engine.metrics import Metrics, MetricsOptions
from megadec.engine.trackers import check_trackers, identity
from tests.unit.engine.test_metrics import REPORT, SHAPE


def record(folder: Path, options: MetricsOptions, peak: float | None = 1e9) -> None:
    with Metrics(
        folder,
        options,
        resumed_step=0,
        evaluated_step=-1,
        steps=2,
        flops=partial(model_flops, SHAPE),
        ranks_peak_flops=peak,
        config={"name": folder.name, "train": {"steps": 2}},
    ) as metrics:
        metrics.record_step(REPORT, tokens=1000, seconds=2.0, seconds_waiting_for_data=0.25)


def test_tensorboard_gets_every_number_of_the_line(tmp_path: Path) -> None:
    record(tmp_path, MetricsOptions())
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
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
    record(tmp_path, MetricsOptions(tensorboard=False), peak=model_flops(SHAPE, 1000, 16000))
    shown = capsys.readouterr().err.split("\r")[-1]
    for part in ("1.00/2.00", "loss=6.500", "tokens_per_second=500", "share_of_peak=50.0%", "<"):
        assert part in shown


PROGRAM = """
import sys
from pathlib import Path
from megadec.engine.metrics import MetricsOptions
from tests.unit.engine.test_trackers import record
record(Path(sys.argv[2]), MetricsOptions(tensorboard=False, offline=True, **{sys.argv[1]: True}))
"""


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
def test_offline_a_library_keeps_to_the_folder_of_the_run(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    folder = tmp_path / "run"
    folder.mkdir()
    # In a process of its own: both change signal handlers and standard output of the one that they are in.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [path for path in (folder / name).rglob("*") if path.is_file() and path.stat().st_size > 0]
    assert json.loads((folder / "metrics.jsonl").read_text())["loss"] == 6.5
