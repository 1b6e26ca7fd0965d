"""A rehearsal: the user's run, scaled down, goes through what can happen, and is compared with itself undisturbed.

It starts the deepspeed launcher as users do, again and again by the same command, and judges each start by few and hard
rules: a checkpoint that was whole is never lost, the next start goes on from the newest, the losses are those of the
undisturbed run, nothing is left over.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from megadec.common.config import to_dict
from megadec.common.errors import CheckpointError, ConfigError, TrainingError
from megadec.common.log import logger
from megadec.engine.checkpoint.manifest import newest_whole
from megadec.engine.metrics.options import FILE_NAME
from megadec.engine.runs.pretrain import Run
from megadec.engine.zero.settings import resolve_precision
from megadec.rehearse.disturbances import DAMAGE, KINDS, LAUNCHER, Disturbance, Kind, RehearsalOptions, choose
from megadec.rehearse.setup import Scene, damaged, make_scene
from megadec.rehearse.start import STARTING, Attempt, NotSeenError, Pace, disturb, pace_of, read_lines

TOLERANCES = {"fp32": 1e-5, "bf16": 1e-2}
# After so many starts in a row that could not be disturbed as planned, nothing more is to be learned.
HOPELESS = 3
SHOWN_OUTPUT = 3000
# A run whose launcher is gone does the step that is under way, and may have begun another before it looks.
LAST_STEPS = 2

Losses = Mapping[tuple[str, int], float]
"""By what was measured (`train`, or the name of a held-out set) and step."""

log = logger(__name__)


@dataclass
class Outcome:
    """A start of the run. Steps are the run's.

    kind: what was done, None for the last start, which nothing happens to; victim: as in Disturbance. place: where in
    the run it struck. at_step: the last that was done. status, seconds: of the launcher, and until every process was
    gone. whole_before, whole: the newest whole checkpoint before and after, 0 for none; went_on_from: that of the next
    start, None until it is known. said: the run named the shard, or said that it cannot write. left: unfinished files
    when it had ended; left_over: those of them that the next start did not clear away. error: why the rehearsal could
    not go as planned.
    """

    number: int
    ranks: int
    deepspeed: str
    done: str
    kind: Kind | None
    victim: int
    place: str = ""
    at_step: int = 0
    status: int | None = None
    seconds: float = 0.0
    whole_before: int = 0
    whole: int = 0
    went_on_from: int | None = None
    loss_difference: float = 0.0
    said: bool = True
    left: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    error: str = ""

    @property
    def steps_lost(self) -> int:
        """Steps that were done and must be done again."""
        return max(0, max(self.at_step, self.whole_before) - self.whole)


@dataclass(frozen=True)
class RehearsalReport:
    """A rehearsal. run: as it was scaled down; steps: of it; problems: by row, empty when all is as it must be."""

    run: Mapping[str, Any]
    seed: int
    steps: int
    tolerance: float
    rows: Sequence[Outcome]
    undisturbed_loss: float
    final_loss: float | None
    seconds: float
    problems: Mapping[int, Sequence[str]]

    def to_json(self) -> dict[str, Any]:
        """As plain values, with what follows from them."""
        rows = [{**to_dict(row), "steps_lost": row.steps_lost} for row in self.rows]
        return {**to_dict(self), "rows": rows, "counts": self.counts}

    @property
    def counts(self) -> dict[str, int]:
        """What was done how often, kills by place."""
        return dict(Counter(f"kill {row.place}" if row.kind == "kill" else row.kind for row in self.rows if row.kind))


def rehearse(run: Run, deepspeed: Path, script: Path, options: RehearsalOptions) -> RehearsalReport:
    """Run it undisturbed, then with every disturbance, then to its end; a report of what happened.

    script: launch/pretrain.py. Raises ConfigError for a run or options that cannot be, TrainingError when the
    undisturbed run does not train.
    """
    folder = options.folder
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: a rehearsal begins in a folder of its own")
    folder = folder or Path(tempfile.mkdtemp(prefix="rehearsal-"))
    # SIGTERM ends the rehearsal as Ctrl-C does: with every process that it has started.
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        scene = make_scene(run, deepspeed, options, folder.resolve())
        if options.damaged_shards and not scene.shards:
            raise ConfigError("no shards of data.train lie on this machine to be damaged: say --damaged_shards 0")
        report = _Rehearsal(scene, script, options, folder / "output").play()
    finally:
        signal.signal(signal.SIGTERM, former)
    if report.problems:
        log.info("the runs and their output stay in %s", folder)
    elif options.folder is None:
        shutil.rmtree(folder)
    return report


class _Rehearsal:
    """The scene, and what is known of the run so far. logs: the folder for the output of every start."""

    def __init__(self, scene: Scene, script: Path, options: RehearsalOptions, logs: Path) -> None:
        self._scene, self._script, self._options, self._logs = scene, script, options, logs
        self._steps = scene.run.train.steps
        self._metrics = scene.run.folder / FILE_NAME
        stated = options.tolerance
        self._tolerance = TOLERANCES[resolve_precision(scene.run.train.precision)] if stated is None else stated
        self._rows: list[Outcome] = []

    def play(self) -> RehearsalReport:
        """All starts."""
        began = time.monotonic()
        self._logs.mkdir(exist_ok=True)
        undisturbed, pace = self._run_undisturbed()
        for what in choose(self._options, evaluates=bool(self._scene.run.evaluate.sets)):
            self._start(what, undisturbed, pace)
            if len(self._rows) >= HOPELESS and all(row.error for row in self._rows[-HOPELESS:]):
                log.error("giving up: %d starts in a row did not come to their disturbance", HOPELESS)
                break
        self._start(None, undisturbed, pace)
        losses = losses_of(read_lines(self._metrics))
        problems = {row.number: wrong for row in self._rows if (wrong := judge(row, self._tolerance, self._steps))}
        return RehearsalReport(
            run=to_dict(self._scene.run),
            seed=self._options.seed,
            steps=self._steps,
            tolerance=self._tolerance,
            rows=self._rows,
            undisturbed_loss=undisturbed["train", self._steps],
            final_loss=losses.get(("train", self._steps)),
            seconds=time.monotonic() - began,
            problems=problems,
        )

    def _run_undisturbed(self) -> tuple[Losses, Pace]:
        folder, output = self._scene.undisturbed, self._logs / "undisturbed"
        log.info("undisturbed: %d steps in %s", self._steps, folder)
        began, command = time.monotonic(), self._command(0, f"--name={folder.name}")
        with Attempt(command, self._options.all_ranks[0], folder, output, self._options.patience_seconds) as start:
            with contextlib.suppress(NotSeenError):  # its output says why
                start.wait_for_step()
            seconds = time.monotonic() - began
            status, _ = start.wait_for_end()
        losses = losses_of(read_lines(folder / FILE_NAME))
        if status or ("train", self._steps) not in losses:
            raise TrainingError(
                f"the undisturbed run ended with {status}; its output, {output}, ends:\n{start.output[-SHOWN_OUTPUT:]}"
            )
        return losses, pace_of(start, seconds)

    def _start(self, what: Disturbance | None, undisturbed: Losses, pace: Pace) -> None:
        """Start the run, let happen what is to happen (None: nothing, it goes to its end), and collect the facts."""
        ranks, file = (what.ranks, what.deepspeed) if what else (self._options.all_ranks[0], 0)
        kind, victim, done = (what.kind, what.victim, what.words) if what else (None, 0, "nothing; to the end")
        row = Outcome(len(self._rows) + 1, ranks, self._scene.deepspeed_files[file].name, done, kind, victim)
        row.whole_before = self._whole_step()
        more, says = (KINDS[kind].options, KINDS[kind].says) if kind else ((), "")
        output = self._logs / f"{row.number:03d}"
        with contextlib.ExitStack() as stack:
            if what and what.kind in DAMAGE:
                shard = self._scene.shards[int(what.fraction * len(self._scene.shards))]
                says = f"{shard.parent.name}/{shard.name}"
                row.done += f": {says}"
                stack.enter_context(damaged(shard, cut=what.kind == "cut shard"))
            sizes = (ranks, self._scene.run.folder, output, self._options.patience_seconds)
            start = stack.enter_context(Attempt(self._command(file, *more), *sizes))
            try:
                row.place = disturb(start, what, pace) if what else ""
                row.status, row.seconds = start.wait_for_end()
            except NotSeenError as not_seen:
                row.error = f"{not_seen}; see {output}"
            except psutil.NoSuchProcess as gone:
                row.error = f"process {gone.pid} had ended before anything was done to it; see {output}"
        trained = start.lines("train")
        row.at_step = max([row.whole_before, *(line["step"] for line in trained)])
        row.whole = self._whole_step()
        row.loss_difference = difference(losses_of([*trained, *start.lines("evaluate")]), undisturbed)
        row.said = says in start.output
        row.left = unfinished_in(self._scene.run.folder)
        self._resolve(went_on_from(start.output, bool(trained)))
        if what is None:
            self._finish(row, undisturbed)
        self._rows.append(row)
        log.info(
            "%d: %s; %s at step %d, ended with %s after %.1f s; step %d is whole, %d unfinished file(s) or folder(s)",
            row.number, row.done, row.place, row.at_step, row.status, row.seconds, row.whole, len(row.left),
        )  # fmt: skip
        for wrong in judge(row, self._tolerance, self._steps):
            log.error("%d: %s", row.number, wrong)

    def _resolve(self, went_on: int | None) -> None:
        """A start went on from there (None: it did not come so far): what the ones before it have left is known now."""
        for row in self._rows:
            if went_on is not None and row.went_on_from is None:
                row.went_on_from = went_on
                row.left_over = tuple(sorted({*row.left} & {*unfinished_in(self._scene.run.folder)}))

    def _finish(self, row: Outcome, undisturbed: Losses) -> None:
        """What must hold for the whole run when its last start has ended."""
        lines = read_lines(self._metrics)
        row.went_on_from, row.left_over = row.whole, row.left
        row.loss_difference = max(row.loss_difference, difference(losses_of(lines), undisturbed))
        if [line["step"] for line in lines if line["kind"] == "train"] != list(range(1, self._steps + 1)):
            row.error = f"{row.error}; metrics.jsonl does not have every step once".removeprefix("; ")

    def _whole_step(self) -> int:
        """The step of the newest checkpoint whose every file is as its manifest says; 0 where there is none."""
        try:
            newest = newest_whole(self._scene.run.checkpoints)
        except CheckpointError as all_damaged:
            log.error("%s", all_damaged)
            return 0
        return newest[1]["step"] if newest else 0

    def _command(self, deepspeed: int, *more: str) -> list[str]:
        files = ["--deepspeed", str(self._scene.deepspeed_files[deepspeed]), "--config", str(self._scene.run_file)]
        return [str(self._script), *files, *more]


def losses_of(lines: Sequence[Mapping[str, Any]]) -> Losses:
    """Every loss in lines of metrics.jsonl, of steps and of held-out sets."""
    found = {}
    for line in lines:
        if line["kind"] in ("train", "evaluate"):
            name = "train" if line["kind"] == "train" else f"evaluate/{line['set']}"
            found[name, line["step"]] = line["loss"]
    return found


def went_on_from(output: str, trained: bool) -> int | None:
    """The step of the checkpoint that a start went on from by its output; 0: it began; None: it did not come so far."""
    found = re.search(r"going on from .*/step_(\d+)", output)
    if found is not None:
        return int(found[1])
    return 0 if trained else None


def unfinished_in(folder: Path) -> tuple[str, ...]:
    """Files and folders under hidden names in a run's folder: what is being written, or was when its writer ended."""
    found = [*folder.glob(".*"), *folder.glob("checkpoints/.*")]
    return tuple(sorted(str(path.relative_to(folder)) for path in found))


def difference(losses: Losses, undisturbed: Losses) -> float:
    """The largest relative difference; infinite where the undisturbed run has no such figure."""
    found = [
        abs(loss - undisturbed[key]) / abs(undisturbed[key]) if key in undisturbed else float("inf")
        for key, loss in losses.items()
    ]
    return max((value if value == value else float("inf") for value in found), default=0.0)


def judge(row: Outcome, tolerance: float, last_step: int) -> list[str]:
    """What is wrong with a row, in words. last_step: of the run."""
    wrong = [row.error] if row.error else []
    if row.whole < row.whole_before:
        wrong.append(f"the checkpoint of step {row.whole_before} was whole and is not any more")
    if row.went_on_from is not None and row.went_on_from != row.whole:
        wrong.append(f"went on from step {row.went_on_from}, and step {row.whole} was whole")
    if not row.loss_difference <= tolerance:
        wrong.append(f"a loss differs by {row.loss_difference:.2g}, more than {tolerance:g}")
    if row.left_over:
        wrong.append(f"left over: {', '.join(row.left_over)}")
    return wrong if row.error else [*wrong, *_wrong_of_kind(row, last_step)]


def _wrong_of_kind(row: Outcome, last_step: int) -> list[str]:
    wrong = []
    fails = row.kind in ("kill", *DAMAGE, "full disk") or row.victim == LAUNCHER
    if fails == (row.status == 0):
        wrong.append(f"ended with {row.status}")
    if row.kind in ("stop", "full disk for a while") and row.whole != row.at_step:
        wrong.append(f"was asked to stop at step {row.at_step}, and saved step {row.whole}")
    went_on = row.at_step - row.whole_before
    if row.kind == "kill" and row.place == STARTING and went_on > LAST_STEPS:
        wrong.append(f"was killed before its first step, and did {went_on} steps")
    if not row.said:
        wrong.append("did not say what was wrong")
    if row.kind == "full disk" and row.left:
        wrong.append(f"left {', '.join(row.left)} on the full disk")
    if row.kind is None and (row.at_step, row.whole) != (last_step, last_step):
        wrong.append(f"ended at step {row.at_step} with the checkpoint of step {row.whole}, not at step {last_step}")
    return wrong


HEAD = ("", "ranks", "what was done", "where", "at step", "ended", "whole", "went on from", "steps lost",
        "loss difference", "left behind", "left over", "")  # fmt: skip


def table(report: RehearsalReport) -> str:
    """The report as Markdown."""
    cells: list[Sequence[object]] = [HEAD, ["---"] * len(HEAD)]
    for row in report.rows:
        ended = "" if row.status is None else f"{row.status} after {row.seconds:.1f} s"
        went_on = "" if row.went_on_from is None else row.went_on_from
        loss = f"{row.loss_difference:.1g}" if row.loss_difference else "0"
        verdict = "; ".join(report.problems.get(row.number, ())) or "ok"
        cells.append((
            row.number, row.ranks, row.done, row.place, row.at_step, ended, row.whole, went_on, row.steps_lost,
            loss, len(row.left), len(row.left_over), verdict,
        ))  # fmt: skip
    done = ", ".join(f"{count} x {name}" for name, count in sorted(report.counts.items()))
    again = sum(row.steps_lost for row in report.rows)
    worst = max((row.loss_difference for row in report.rows), default=0.0)
    total = (
        f"{done}; {again} steps done again; largest loss difference {worst:.2g} (allowed: {report.tolerance:g});"
        f" loss of step {report.steps}: {report.final_loss}, undisturbed {report.undisturbed_loss};"
        f" {report.seconds:.0f} s."
    )
    end = f"All {len(report.rows)} rows are as they must be."
    if report.problems:
        end = f"{len(report.problems)} of {len(report.rows)} rows are not as they must be."
    return "\n".join([*(f"| {' | '.join(map(str, line))} |" for line in cells), "", total, end])
