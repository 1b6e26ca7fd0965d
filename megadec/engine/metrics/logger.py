"""What a run tells about itself: metrics.jsonl, a progress bar, and trackers (trackers.py).

In come step reports and evaluations, out goes one JSON line each, on rank 0. Lines are flushed one by one, so that a
killed run has told everything; a resumed run cuts the lines of steps that it will do again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from megadec.common.errors import StorageError
from megadec.common.files import storage_errors, whole_file
from megadec.common.log import logger, progress
from megadec.engine.metrics.device import peak_flops
from megadec.engine.metrics.options import FILE_NAME, MetricsOptions
from megadec.engine.metrics.reports import Evaluation, Sample, Saved, StepReport
from megadec.engine.metrics.trackers import TensorBoard, Tracker, open_trackers
from megadec.engine.ranks import Ranks

log = logger(__name__)


class MetricsLogger:
    """Writes on rank 0 and does nothing on the others. A context manager.

    `flops`: (tokens, sum of squared document lengths) -> operations, of which mfu is a share of the devices' peak.
    config: the resolved run, for trackers.
    """

    def __init__(
        self,
        folder: Path,
        options: MetricsOptions,
        ranks: Ranks,
        *,
        resumed_step: int,
        evaluated_step: int,
        steps: int,
        flops: Callable[[int, int], int],
        config: Mapping[str, Any],
    ) -> None:
        peak = peak_flops(options, ranks.device)
        self._flops, self._peak = flops, None if peak is None else peak * ranks.world_size
        self._writer: LineWriter | None = None
        self._trackers: tuple[Tracker, ...] = ()
        self._bar = progress(
            description=folder.name,
            total=steps,
            unit="step",
            initial=resumed_step,
            line_seconds=options.progress_seconds,
        )
        if ranks.rank == 0:
            keep_lines(folder / FILE_NAME, resumed_step, evaluated_step)
            self._writer = LineWriter(folder / FILE_NAME)
            self._trackers = open_trackers(folder, options, config, resumed_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Write what is left and close. Raises StorageError when lines of metrics.jsonl would be lost, unless the run
        ends with an error, which is to be seen.
        """
        self._bar.close()
        for tracker in self._trackers:
            try:
                tracker.close()
            except Exception as problem:  # of the library; the next one is closed all the same
                log.warning("%s was not closed: %s", type(tracker).__name__, problem)
        try:
            if self._writer is not None:
                self._writer.close()
        except StorageError as problem:
            if error is None:
                raise
            log.error("at the end of the run's metrics: %s", problem)

    def record_step(
        self, report: StepReport, *, tokens: int, seconds: float, data_seconds: float, stage: str | None = None
    ) -> None:
        """One line for a step. `tokens`: seen since the run began; `seconds`: from the end of the step before; stage:
        of a run that has some.
        """
        rate, used = report.tokens / seconds, None
        if self._peak:
            used = self._flops(report.tokens, report.squared_document_tokens) / seconds / self._peak
        self._write(
            "train",
            {
                "step": report.step,
                **({} if stage is None else {"stage": stage}),
                "tokens": tokens,
                "loss": report.loss,
                "learning_rate": report.learning_rate,
                "grad_norm": report.grad_norm,
                "tokens_per_second": round(rate, 1),
                "mfu": used,
                "memory_bytes": list(report.memory_bytes),
                "seconds": round(seconds, 4),
                "data_seconds": round(data_seconds, 4),
            },
        )
        shown = {"loss": f"{report.loss:.3f}", "lr": f"{report.learning_rate:.2e}"}
        shown |= {"grad_norm": f"{report.grad_norm:.2f}", "tokens_per_second": f"{rate:,.0f}"}
        if used is not None:
            shown["mfu"] = f"{used:.1%}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)

    def record_evaluations(self, evaluations: Sequence[Evaluation]) -> None:
        """One line for each held-out set."""
        for one in evaluations:
            line = {"step": one.step, "set": one.name, **one.values, "seconds": round(one.seconds, 3)}
            self._write(f"evaluate/{one.name}", line)

    def record_samples(self, samples: Sequence[Sample]) -> None:
        """One line for each text that the model wrote; TensorBoard shows them beside each other by step."""
        for number, one in enumerate(samples):
            self._write("sample", {"step": one.step, "prompt": one.prompt, "text": one.text})
            for tracker in self._trackers:
                if isinstance(tracker, TensorBoard):
                    self._track(
                        tracker, partial(tracker.log_text, f"sample/{number}", f"[{one.prompt}]{one.text}", one.step)
                    )

    def record_anomaly(self, values: Mapping[str, Any]) -> None:
        """One line for what the guard found at a step; it stands in place of the step's own when that was refused."""
        self._write("guard", values)

    def record_save(self, saved: Saved) -> None:
        """One line for a finished checkpoint, with the seconds that training was blocked by it."""
        seconds = {"stall_seconds": round(saved.stall_seconds, 4), "seconds": round(saved.seconds, 4)}
        how = {"rank_bytes": saved.bytes, "asynchronous": saved.asynchronous}
        self._write("checkpoint", {"step": saved.step, **seconds, **how})

    def _write(self, kind: str, values: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        self._writer.write(json.dumps({"kind": kind.partition("/")[0], **values}, ensure_ascii=False))
        numbers = {
            f"{kind}/{key}": value for key, value in values.items() if key != "step" and isinstance(value, int | float)
        }
        for tracker in self._trackers:
            self._track(tracker, partial(tracker.log, numbers, values["step"]))

    def _track(self, tracker: Tracker, tell: Callable[[], None]) -> None:
        """Tell a tracker, and leave it out from then on where that fails."""
        try:
            tell()
        except Exception as error:  # of the library: a dashboard may not end a run
            name = type(tracker).__name__
            log.warning("%s takes no more figures (%s); metrics.jsonl has them all", name, error or type(error))
            self._trackers = tuple(one for one in self._trackers if one is not tracker)


def keep_lines(path: Path, step: int, evaluated_step: int) -> None:
    """Cut the lines of steps after `step`, evaluations after `evaluated_step`, and an unfinished last line.

    What stopped the run stays also after `step`: it names the documents that the next start may want to leave out.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    last = {"train": step, "evaluate": evaluated_step, "sample": evaluated_step, "guard": step, "checkpoint": step}
    with whole_file(path, "w") as stream:
        for line in lines:
            if line.endswith("\n"):
                values = json.loads(line)
                if values["step"] <= last[values["kind"]] or values.get("action") == "stop":
                    stream.write(line)


class LineWriter:
    """A file that grows line by line, and whose lines wait in memory while the disk is full.

    A process that is killed meanwhile loses the lines that waited; one that ended because of them would lose the
    training state. Raises StorageError when the file cannot be opened, and at the end when lines are left over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = b""
        self._said = False
        with storage_errors(path):
            # Without a buffer, what was written and what was not is known at every moment.
            self._stream = open(path, "ab", buffering=0)  # noqa: SIM115 closed in close

    def write(self, line: str) -> None:
        """Append a line, or keep it until the disk takes it."""
        self._waiting += line.encode() + b"\n"
        try:
            self._flush()
        except StorageError as error:
            if not self._said:
                log.error("%s. Its lines stay in memory until it can be written", error)
                self._said = True

    def close(self) -> None:
        """Write what is left. Raises StorageError."""
        with self._stream:
            self._flush()

    def _flush(self) -> None:
        with storage_errors(self._path):
            while self._waiting:
                self._waiting = self._waiting[self._stream.write(self._waiting) :]
        self._said = False
