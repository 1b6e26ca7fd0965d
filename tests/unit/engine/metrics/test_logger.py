"""One line a step, what a resumed run cuts, and an end that hides no error."""

import json
import math
import resource
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from megadec.common.errors import StorageError, TrainingError
from megadec.decoder.flops import model_flops
from megadec.engine.evaluate import figures
from megadec.engine.metrics import logger
from megadec.engine.metrics.device import peak_flops, peak_memory_bytes
from megadec.engine.metrics.logger import LineWriter, MetricsLogger, keep_lines
from megadec.engine.metrics.options import MetricsOptions
from megadec.engine.metrics.reports import Evaluation, StepReport
from megadec.engine.ranks import Ranks
from tests.support.decoders import tiny_shape

SHAPE = tiny_shape()
REPORT = StepReport(1, 6.5, 1000, 16000, 0.001, 2.0, (10, 20))


def open_metrics(folder: Path, ranks: int = 1, **options: Any) -> MetricsLogger:
    return MetricsLogger(
        folder,
        MetricsOptions(**{"tensorboard": False, **options}),
        Ranks(0, ranks, torch.device("cpu")),
        resumed_step=0,
        evaluated_step=-1,
        steps=2,
        flops=partial(model_flops, SHAPE),
        config={"name": folder.name, "train": {"steps": 2}},
    )


def record(folder: Path, **options: Any) -> dict[str, Any]:
    """The line of one step."""
    with open_metrics(folder, **options) as metrics:
        metrics.record_step(REPORT, tokens=1000, seconds=2.0, data_seconds=0.25)
    return json.loads((folder / "metrics.jsonl").read_text())  # type: ignore[no-any-return]


def test_a_step_is_one_line_with_every_figure(tmp_path: Path) -> None:
    assert record(tmp_path, ranks=2, peak_flops=5e8) == {
        "kind": "train",
        "step": 1,
        "tokens": 1000,
        "loss": 6.5,
        "learning_rate": 0.001,
        "grad_norm": 2.0,
        "tokens_per_second": 500.0,
        "mfu": model_flops(SHAPE, 1000, 16000) / 2.0 / 1e9,
        "memory_bytes": [10, 20],
        "seconds": 2.0,
        "data_seconds": 0.25,
    }


def test_an_evaluation_is_one_line_with_loss_perplexity_and_bits_per_character(tmp_path: Path) -> None:
    with open_metrics(tmp_path) as metrics:
        metrics.record_evaluations([Evaluation(0, "wiki", figures(1280.0, 640, 900), 0.1)])
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["kind"], line["set"], line["loss"]) == ("evaluate", "wiki", 2.0)
    assert line["perplexity"] == pytest.approx(7.389056)
    assert line["bits_per_character"] == pytest.approx(1280 / math.log(2) / 900)
    assert (line["evaluated_tokens"], line["evaluated_characters"]) == (640, 900)


def test_an_unknown_peak_is_null_and_not_a_guess(tmp_path: Path) -> None:
    assert record(tmp_path)["mfu"] is None
    assert peak_flops(MetricsOptions(), torch.device("cpu")) is None


def test_memory_is_counted_in_bytes() -> None:
    assert 2**24 < peak_memory_bytes(torch.device("cpu")) < 2**42


def kept(path: Path, lines: list[dict[str, Any]], step: int, evaluated_step: int) -> list[dict[str, Any]]:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tra')
    keep_lines(path, step, evaluated_step)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_run_cuts_what_it_will_do_again_and_a_line_that_a_kill_left_unfinished(tmp_path: Path) -> None:
    steps = [{"kind": "train", "step": n} for n in (1, 2, 3, 4)]
    evaluations = [{"kind": "evaluate", "step": n, "set": "wiki"} for n in (0, 2, 4)]
    left = kept(tmp_path / "metrics.jsonl", [*evaluations, *steps], step=2, evaluated_step=0)
    assert left == [evaluations[0], steps[0], steps[1]]
    lines = [{"kind": "guard", "step": n, "action": action} for n, action in ((2, "skip"), (4, "skip"), (5, "stop"))]
    left = kept(tmp_path / "metrics.jsonl", lines, step=3, evaluated_step=0)
    assert [line["step"] for line in left] == [2, 5], "what stopped the run stays"


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> list[Mock]:
    """Of metrics on a full disk: one that cannot be closed, and one behind it."""
    found = [Mock(close=Mock(side_effect=StorageError("events: No space left on device"))), Mock()]
    monkeypatch.setattr(logger, "LineWriter", lambda _: LineWriter(Path("/dev/full")))
    monkeypatch.setattr(logger, "open_trackers", lambda *_: tuple(found))
    return found


def test_what_cannot_be_flushed_does_not_hide_the_error_that_ended_the_run_nor_leave_trackers_open(
    tmp_path: Path, trackers: list[Mock], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingError, match="rank 3 was lost"), open_metrics(tmp_path) as metrics:
        metrics.record_anomaly({"step": 1})
        raise TrainingError("rank 3 was lost")
    assert all(one.close.called for one in trackers)
    shown = capsys.readouterr().err
    for words in ("at the end of the run's metrics: /dev/full", "events: No space left"):
        assert words in shown


def test_a_run_that_ends_well_says_by_an_error_that_its_metrics_are_not_whole(
    tmp_path: Path, trackers: list[Mock]
) -> None:
    with pytest.raises(StorageError, match=r"/dev/full.*disk is full"), open_metrics(tmp_path) as metrics:
        metrics.record_anomaly({"step": 1})
    assert all(one.close.called for one in trackers)


def test_every_line_is_there_once_when_the_disk_has_room_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, limits = LineWriter(tmp_path / "lines"), resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the size of a file stands for a full disk: it cuts the line that meets it.
    room = {5: (37, limits[1]), 10: limits, 15: (117, limits[1]), 20: limits}
    try:
        for number in range(30):
            if number in room:
                resource.setrlimit(resource.RLIMIT_FSIZE, room[number])
            lines.write(f"line {number}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines.close()
    assert (tmp_path / "lines").read_text() == "".join(f"line {number}\n" for number in range(30))
    assert capsys.readouterr().err.count("Its lines stay in memory") == 2


# The library's own thread ends so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dashboard_that_finds_no_room_is_left_out_and_every_line_is_there_when_there_is_room_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_metrics(tmp_path, tensorboard=True) as metrics:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
            for step in range(1, 200):
                metrics.record_anomaly({"step": step, "value": 0.5})
                time.sleep(0.001)  # TensorBoard writes from a thread of its own
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 200))
    assert capsys.readouterr().err.count("TensorBoard takes no more figures") == 1
