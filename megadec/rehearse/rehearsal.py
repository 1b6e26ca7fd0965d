"""A rehearsal: the user's run, scaled down, goes through what can happen, and is compared with itself undisturbed.

In come a run, its DeepSpeed file and the script that trains it; out comes a report with a row for each start. It starts
the deepspeed launcher as users do, again and again by the same command. Real processes, files and signals take seconds
a row; a rehearsal without them would prove nothing.
"""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

from megadec.common.config import to_dict
from megadec.common.errors import CheckpointError, ConfigError, TrainingError
from megadec.common.log import logger
from megadec.engine.checkpoint.manifest import newest_whole
from megadec.engine.metrics.options import FILE_NAME
from megadec.engine.runs.pretrain import Run
from megadec.engine.zero.settings import resolve_precision
from megadec.rehearse.choice import Disturbance, RehearsalOptions, choose
from megadec.rehearse.disturbances import Pace, disturb
from megadec.rehearse.report import Losses, Report, Row, difference, judge
from megadec.rehearse.setup import Scene, damage, make_scene, mend
from megadec.rehearse.start import NotSeenError, Start, read_lines

TOLERANCES = {"fp32": 1e-5, "bf16": 1e-2}
# After so many starts in a row that could not be disturbed as planned, nothing more is to be learned.
HOPELESS = 3
SHOWN_OUTPUT = 3000
REFUSED_OPTIONS = {
    "cut shard": ("--data.bad_shards=0",),
    "flipped byte": ("--data.bad_shards=0", "--data.verify=hashes"),
    "full disk": ("--checkpoint.retries=1", "--checkpoint.retry_pause_seconds=0.2"),
    "full disk for a while": ("--checkpoint.retries=100000", "--checkpoint.retry_pause_seconds=0.2"),
}

log = logger(__name__)


def rehearse(run: Run, deepspeed: Path, script: Path, options: RehearsalOptions) -> Report:
    """Run it undisturbed, then with every disturbance, then to its end; a report of what happened.

    script: launch/pretrain.py. Raises ConfigError for a run or options that cannot be, TrainingError when the
    undisturbed run does not train.
    """
    folder = options.folder
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: a rehearsal begins in a folder of its own")
    folder = folder or Path(tempfile.mkdtemp(prefix="rehearsal-"))
    with _ended_in_order():
        scene = make_scene(run, deepspeed, options, folder.resolve())
        if options.damaged_shards and not scene.shards:
            raise ConfigError("no shards of data.train lie on this machine to be damaged: say --damaged_shards 0")
        report = _Rehearsal(scene, script, options, folder).play()
    if report.problems:
        log.info("the runs and their output stay in %s", folder)
    elif options.folder is None:
        shutil.rmtree(folder)
    return report


class _Rehearsal:
    """The scene, and what is known of the run so far."""

    def __init__(self, scene: Scene, script: Path, options: RehearsalOptions, folder: Path) -> None:
        self._scene, self._script, self._options = scene, script, options
        self._logs = folder / "output"
        self._logs.mkdir(exist_ok=True)
        self._tolerance = options.tolerance
        if self._tolerance is None:
            self._tolerance = TOLERANCES[resolve_precision(scene.run.train.precision)]
        self._pace = Pace()
        self._rows: list[Row] = []
        self._undisturbed: Losses = {}

    def play(self) -> Report:
        """All starts."""
        began = time.monotonic()
        self._undisturbed = self._run_undisturbed()
        planned = choose(self._options, evaluates=bool(self._scene.run.evaluate.sets))
        for number, what in enumerate(planned, start=1):
            self._rows.append(self._start(number, what))
            self._tell(self._rows[-1])
            if len(self._rows) >= HOPELESS and all(row.error for row in self._rows[-HOPELESS:]):
                log.error("giving up: %d starts in a row did not come to their disturbance", HOPELESS)
                break
        self._rows.append(self._end(len(self._rows) + 1))
        self._tell(self._rows[-1])
        return self._report(time.monotonic() - began)

    def _run_undisturbed(self) -> Losses:
        folder, output = self._scene.undisturbed, self._logs / "undisturbed"
        log.info("undisturbed: %d steps in %s", self._scene.run.train.steps, folder)
        with Start(self._command(0, f"--name={folder.name}"), self._options.all_ranks[0], folder, output,
                   self._options.patience_seconds) as start:  # fmt: skip
            status, _ = start.wait_for_end()
        losses = losses_of(start.metrics.look())
        if status or ("train", self._scene.run.train.steps) not in losses:
            raise TrainingError(
                f"the undisturbed run ended with {status}; its output, {output}, ends:\n{start.output[-SHOWN_OUTPUT:]}"
            )
        self._pace.learn(start)
        return losses

    def _start(self, number: int, what: Disturbance) -> Row:
        """One start, disturbed."""
        row = Row(number, what.ranks, self._file(what.deepspeed).name, what.words, what.kind, what.victim)
        damaged = None
        if what.kind in ("cut shard", "flipped byte"):
            shard = self._scene.shards[int(what.fraction * len(self._scene.shards))]
            damaged = shard, damage(shard, cut=what.kind == "cut shard")
            row = replace(row, done=f"{row.done}: {shard.parent.name}/{shard.name}")
        try:
            more = REFUSED_OPTIONS.get(what.kind, ())
            wanted = {"full disk": "cannot write", "full disk for a while": "cannot write"}.get(what.kind, "")
            if damaged is not None:
                wanted = f"{shard.parent.name}/{shard.name}"
            return self._played(row, what, more, wanted)
        finally:
            if damaged is not None:
                mend(*damaged)

    def _end(self, number: int) -> Row:
        """The last start, to the end of the run."""
        ranks = self._options.all_ranks[0]
        row = self._played(Row(number, ranks, self._file(0).name, "nothing; to the end", None, 0), None, (), "")
        steps = [line["step"] for line in read_lines(self._scene.run.folder / FILE_NAME) if line["kind"] == "train"]
        losses = losses_of(read_lines(self._scene.run.folder / FILE_NAME))
        worst = max(row.loss_difference, difference(losses, self._undisturbed))
        error = row.error
        if steps != list(range(1, self._scene.run.train.steps + 1)):
            error = f"{error}; metrics.jsonl does not have every step once".removeprefix("; ")
        return replace(row, went_on_from=row.whole, loss_difference=worst, left_over=row.left, error=error)

    def _played(self, row: Row, what: Disturbance | None, more: Sequence[str], wanted: str) -> Row:
        """Start the run, let happen what is to happen, and collect the facts. wanted: words that the run must say."""
        folder, error, place, status, seconds = self._scene.run.folder, "", "", None, 0.0
        before = self._whole_step()
        command = self._command(what.deepspeed if what else 0, *more)
        output = self._logs / f"{row.number:03d}"
        with Start(command, row.ranks, folder, output, self._options.patience_seconds) as start:
            try:
                place = disturb(start, what, self._pace) if what else ""
                status, seconds = start.wait_for_end()
            except NotSeenError as not_seen:
                error = f"{not_seen}; see {output}"
            except psutil.NoSuchProcess as gone:
                error = f"process {gone.pid} had ended before anything was done to it; see {output}"
        own = start.metrics.look()
        self._resolve(went_on_from(start.output, bool(own)))
        self._pace.learn(start)
        return replace(
            row,
            place=place,
            at_step=max([before, *(line["step"] for line in own if line["kind"] == "train")]),
            status=status,
            seconds=seconds,
            whole_before=before,
            whole=self._whole_step(),
            loss_difference=difference(losses_of(own), self._undisturbed),
            said=wanted in start.output,
            left=unfinished_in(folder),
            error=error,
        )

    def _resolve(self, went_on: int | None) -> None:
        """A start went on from there (None: it did not come so far): what the ones before it have left is known now."""
        if went_on is None:
            return
        still = set(unfinished_in(self._scene.run.folder))
        for place, row in enumerate(self._rows):
            if row.went_on_from is None:
                left_over = tuple(name for name in row.left if name in still)
                self._rows[place] = replace(row, went_on_from=went_on, left_over=left_over)
                self._complain(self._rows[place], self._judge(row))

    def _whole_step(self) -> int:
        """The step of the newest checkpoint whose every file is as its manifest says; 0 where there is none."""
        try:
            newest = newest_whole(self._scene.run.checkpoints)
        except CheckpointError as damaged:
            log.error("%s", damaged)
            return 0
        return newest[1]["step"] if newest else 0

    def _command(self, deepspeed: int, *more: str) -> list[str]:
        files = ["--deepspeed", str(self._file(deepspeed)), "--config", str(self._scene.run_file)]
        return [str(self._script), *files, *more]

    def _file(self, number: int) -> Path:
        return self._scene.deepspeed_files[number]

    def _tell(self, row: Row) -> None:
        log.info(
            "%d: %s; %s at step %d, ended with %s after %.1f s; step %d is whole, %d unfinished file(s) or folder(s)",
            row.number, row.done, row.place, row.at_step, row.status, row.seconds, row.whole, len(row.left),
        )  # fmt: skip
        self._complain(row)

    def _complain(self, row: Row, said: Sequence[str] = ()) -> None:
        for wrong in self._judge(row):
            if wrong not in said:
                log.error("%d: %s", row.number, wrong)

    def _judge(self, row: Row) -> list[str]:
        assert self._tolerance is not None
        return judge(row, self._tolerance, self._scene.run.train.steps)

    def _report(self, seconds: float) -> Report:
        steps = self._scene.run.train.steps
        problems = {row.number: wrong for row in self._rows if (wrong := self._judge(row))}
        final = losses_of(read_lines(self._scene.run.folder / FILE_NAME)).get(("train", steps))
        assert self._tolerance is not None
        return Report(
            run=to_dict(self._scene.run),
            seed=self._options.seed,
            steps=steps,
            tolerance=self._tolerance,
            rows=self._rows,
            undisturbed_loss=self._undisturbed["train", steps],
            final_loss=final,
            seconds=seconds,
            problems=problems,
        )


def losses_of(lines: Sequence[dict[str, Any]]) -> Losses:
    """Every loss in lines of metrics.jsonl, of steps and of held-out sets."""
    names = {"train": lambda line: "train", "evaluate": lambda line: f"evaluate/{line['set']}"}
    return {(names[line["kind"]](line), line["step"]): line["loss"] for line in lines if line["kind"] in names}


def went_on_from(output: str, trained: bool) -> int | None:
    """The step of the checkpoint that a start went on from by its output; 0: it began; None: it did not come so far.

    trained: it has made a step, or evaluated.
    """
    found = re.search(r"going on from .*/step_(\d+)", output)
    if found is not None:
        return int(found[1])
    return 0 if trained else None


def unfinished_in(folder: Path) -> tuple[str, ...]:
    """Files and folders under hidden names in a run's folder: what is being written, or was when its writer ended."""
    found = []
    for place in (folder, folder / "checkpoints"):
        if place.is_dir():
            found += [str(path.relative_to(folder)) for path in place.iterdir() if path.name.startswith(".")]
    return tuple(sorted(found))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends the rehearsal as Ctrl-C does: with every process that it has started."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
