"""What a run tells about itself: metrics.jsonl, a progress bar, and trackers (trackers.py).

In come step reports and evaluations, out goes one JSON line each, on rank 0. Trade-off: lines are flushed one by one,
so that a killed run has told everything; a resumed run cuts the lines of steps that it will do again.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from megadec.common.errors import ConfigError
from megadec.common.files import whole_file
from megadec.common.log import logger, progress
from megadec.common.ranks import is_first
from megadec.engine.metrics.line_writer import KeptLines
from megadec.engine.metrics.trackers import Tracker, open_trackers

if TYPE_CHECKING:
    from megadec.engine.checkpoint.checkpointer import Saved
    from megadec.engine.step import StepReport

FILE_NAME = "metrics.jsonl"
# Dense bf16 peak of one device by its makers' data sheets, where the run does not state one. A CPU's is not known.
PEAK_FLOPS_BY_NAME = {"H200": 989e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12}

log = logger(__name__)


@dataclass(frozen=True)
class MetricsOptions:
    """`peak_flops`: what one device could do a second, for the utilisation; unknown where it is left out on a CPU.

    tensorboard, wandb, swanlab: where the figures go beside metrics.jsonl; the latter two are extras. project: the name
    that they file runs under. offline: they keep to the run's folder and need no network.
    """

    tensorboard: bool = True
    wandb: bool = False
    swanlab: bool = False
    project: str = "megadec"
    offline: bool = False
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        if self.peak_flops is not None and self.peak_flops <= 0:
            raise ConfigError(f"metrics.peak_flops={self.peak_flops} is not above 0")


@dataclass(frozen=True)
class Evaluation:
    """One held-out set at one step. `values`: the figures by name, `loss` in nats a prediction among them."""

    step: int
    name: str
    values: Mapping[str, float]
    seconds: float


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: on the device for CUDA, resident for CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_flops(options: MetricsOptions, device: torch.device) -> float | None:
    """Peak floating-point operations a second of one device, or None where nobody knows."""
    if options.peak_flops is not None or device.type != "cuda":
        return options.peak_flops
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_FLOPS_BY_NAME.items() if key in name), None)


class Metrics:
    """Writes on rank 0 and does nothing on the others. A context manager.

    `flops`: (tokens, sum of squared document lengths) -> operations; `ranks_peak_flops`: what all devices together
    could do a second, or None where nobody knows. config: the resolved run, for trackers.
    """

    def __init__(
        self,
        folder: Path,
        options: MetricsOptions,
        *,
        resumed_step: int,
        evaluated_step: int,
        steps: int,
        flops: Callable[[int, int], int],
        ranks_peak_flops: float | None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = folder / FILE_NAME
        self._flops = flops
        self._peak = ranks_peak_flops
        self._stream: KeptLines | None = None
        self._trackers: tuple[Tracker, ...] = ()
        self._bar = progress(description=folder.name, total=steps, unit="step", initial=resumed_step)
        if is_first():
            keep_lines(self._path, resumed_step, evaluated_step)
            self._stream = KeptLines(self._path)
            self._trackers = open_trackers(folder, options, config or {}, resumed_step)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left and close. Raises StorageError, unless the run ends with an error, which is to be seen."""
        self._bar.close()
        streams = () if self._stream is None else (self._stream,)
        problems: list[Exception] = []
        for one in (*streams, *self._trackers):
            try:
                one.close()
            except Exception as problem:  # the next one is closed all the same
                problems.append(problem)
        raised = problems.pop(0) if problems and error is None else None
        for other in problems:
            log.error("at the end of the run's metrics: %s", other)
        if raised is not None:
            raise raised

    def record_step(self, report: StepReport, *, tokens: int, seconds: float, seconds_waiting_for_data: float) -> None:
        """One line for a step. `tokens`: seen since the run began; `seconds`: from the end of the step before."""
        rate = report.tokens / seconds
        flops = self._flops(report.tokens, report.squared_document_tokens)
        used = flops / seconds / self._peak if self._peak else None
        self._write(
            "train",
            {
                "step": report.step,
                "tokens": tokens,
                "loss": report.loss,
                "learning_rate": report.learning_rate,
                "grad_norm": report.grad_norm,
                "tokens_per_second": round(rate, 1),
                "model_flops_utilisation_fraction": used,
                "memory_bytes": list(report.memory_bytes),
                "seconds": round(seconds, 4),
                "seconds_waiting_for_data": round(seconds_waiting_for_data, 4),
            },
        )
        shown = {"loss": f"{report.loss:.3f}", "tokens_per_second": f"{rate:,.0f}"}
        if used is not None:
            shown["share_of_peak"] = f"{used:.1%}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)

    def record_evaluations(self, evaluations: Sequence[Evaluation]) -> None:
        """One line for each held-out set."""
        for evaluation in evaluations:
            self._write(
                f"evaluate/{evaluation.name}",
                {
                    "step": evaluation.step,
                    "set": evaluation.name,
                    **evaluation.values,
                    "seconds": round(evaluation.seconds, 3),
                },
            )

    def record_finding(self, values: Mapping[str, Any]) -> None:
        """One line for what the guard found at a step; it stands in place of the step's own when that was refused."""
        self._write("guard", values)

    def record_save(self, saved: Saved) -> None:
        """One line for a checkpoint that has its name, with the seconds that training waited for it."""
        self._write(
            "checkpoint",
            {
                "step": saved.step,
                "stall_seconds": round(saved.stall_seconds, 4),
                "seconds": round(saved.seconds, 4),
                "rank_bytes": saved.bytes,
                "asynchronous": saved.asynchronous,
            },
        )

    def _write(self, kind: str, values: Mapping[str, Any]) -> None:
        if self._stream is None:
            return
        self._stream.write(json.dumps({"kind": kind.partition("/")[0], **values}, ensure_ascii=False))
        numbers = {f"{kind}/{key}": value for key, value in values.items() if isinstance(value, int | float)}
        del numbers[f"{kind}/step"]
        for tracker in self._trackers:
            tracker.log(numbers, values["step"])


def keep_lines(path: Path, step: int, evaluated_step: int) -> None:
    """Cut the lines of steps after `step`, evaluations after `evaluated_step`, and an unfinished last line.

    What stopped the run stays also after `step`: it names the documents that the next start may want to leave out.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    last = {"train": step, "evaluate": evaluated_step, "guard": step, "checkpoint": step}
    with whole_file(path, "w") as stream:
        for line in lines:
            if line.endswith("\n"):
                values = json.loads(line)
                if values["step"] <= last[values["kind"]] or values.get("answer") == "stop":
                    stream.write(line)
