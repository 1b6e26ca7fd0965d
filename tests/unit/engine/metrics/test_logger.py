"""One line a step, and what a resumed run cuts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

from megadec.common.errors import ConfigError, StorageError, TrainingError
from megadec.decoder.flops import model_flops
from megadec.decoder.shape import DecoderShape
from megadec.engine.evaluate import figures
from megadec.engine.metrics.device import peak_flops, peak_memory_bytes
from megadec.engine.metrics.logger import Metrics, keep_lines
from megadec.engine.metrics.options import MetricsOptions
from megadec.engine.metrics.reports import Evaluation, StepReport

SHAPE = DecoderShape(
    vocabulary_size=64,
    hidden_size=16,
    layers=2,
    heads=2,
    kv_heads=1,
    head_size=8,
    intermediate_size=64,
    max_position_embeddings=16,
)
REPORT = StepReport(1, 6.5, 1000, 16000, 0.001, 2.0, 0.5, (10, 20))


def record(folder: Path, ranks_peak_flops: float | None) -> list[dict[str, object]]:
    options = MetricsOptions(tensorboard=False)
    peak = ranks_peak_flops
    with Metrics(
        folder,
        options,
        resumed_step=0,
        evaluated_step=-1,
        steps=2,
        flops=partial(model_flops, SHAPE),
        ranks_peak_flops=peak,
    ) as metrics:
        metrics.record_evaluations([Evaluation(0, "wiki", figures(1280.0, 640, 900), 0.1)])
        metrics.record_step(REPORT, tokens=1000, seconds=2.0, data_seconds=0.25)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_is_one_line_with_every_figure(tmp_path: Path) -> None:
    evaluation, step = record(tmp_path, ranks_peak_flops=1e9)
    assert step == {
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
    assert evaluation["perplexity"] == pytest.approx(7.389056)
    assert evaluation["bits_per_character"] == pytest.approx(1280 / math.log(2) / 900)
    assert (evaluation["evaluated_tokens"], evaluation["evaluated_characters"]) == (640, 900)


def test_an_unknown_peak_is_null_and_not_a_guess(tmp_path: Path) -> None:
    assert record(tmp_path, ranks_peak_flops=None)[1]["mfu"] is None
    assert peak_flops(MetricsOptions(), torch.device("cpu")) is None
    assert peak_flops(MetricsOptions(peak_flops=5.0), torch.device("cpu")) == 5.0


def test_a_resumed_run_cuts_what_it_will_do_again_and_a_line_that_a_kill_left_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    steps = [{"kind": "train", "step": n} for n in (1, 2, 3, 4)]
    evaluations = [{"kind": "evaluate", "step": n, "set": "wiki"} for n in (0, 2, 4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*evaluations, *steps]) + '{"kind": "tra')
    keep_lines(path, step=2, evaluated_step=0)
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [evaluations[0], steps[0], steps[1]]


def test_memory_is_counted_in_bytes() -> None:
    assert 2**24 < peak_memory_bytes(torch.device("cpu")) < 2**42


def test_a_peak_that_is_not_above_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"metrics\.peak_flops"):
        MetricsOptions(peak_flops=0.0)


class Closed:
    """A tracker that counts how often it was closed."""

    def __init__(self) -> None:
        self.times = 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        pass

    def close(self) -> None:
        self.times += 1


def full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Metrics, Closed]:
    """Metrics whose file cannot be flushed at the end, and their last tracker, behind one that cannot be closed."""
    metrics = Metrics(
        folder,
        MetricsOptions(tensorboard=False),
        resumed_step=0,
        evaluated_step=-1,
        steps=2,
        flops=partial(model_flops, SHAPE),
        ranks_peak_flops=None,
    )

    def refuse(whose: str) -> Callable[[], None]:
        def close() -> None:
            raise StorageError(f"{whose}: No space left on device")

        return close

    broken, last = Closed(), Closed()
    monkeypatch.setattr(broken, "close", refuse("events"))
    metrics._trackers = (broken, last)
    assert metrics._stream is not None
    metrics._stream.close()
    monkeypatch.setattr(metrics._stream, "close", refuse("metrics.jsonl"))
    return metrics, last


def test_what_cannot_be_flushed_does_not_hide_the_error_that_ended_the_run_nor_leave_trackers_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, last = full_disk(tmp_path, monkeypatch)
    with pytest.raises(TrainingError, match="rank 3 was lost"), metrics:
        raise TrainingError("rank 3 was lost")
    assert last.times == 1
    shown = capsys.readouterr().err
    for whose in ("metrics.jsonl", "events"):
        assert f"{whose}: No space left" in shown


def test_a_run_that_ends_well_says_by_an_error_that_its_metrics_are_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, last = full_disk(tmp_path, monkeypatch)
    with pytest.raises(StorageError, match=r"metrics\.jsonl: No space left"), metrics:
        pass
    assert last.times == 1


def test_what_the_guard_found_is_cut_with_its_step_unless_it_stopped_the_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"kind": "guard", "step": n, "action": action} for n, action in ((2, "skip"), (4, "skip"), (5, "stop"))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keep_lines(path, step=3, evaluated_step=0)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [2, 5]
