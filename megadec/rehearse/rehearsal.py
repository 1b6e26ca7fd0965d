"""A rehearsal: the user's run, scaled down, goes through what can happen, and is compared with itself undisturbed.

It starts the deepspeed launcher as users do, again and again by the same command, and judges each start by few and hard
rules: a checkpoint that was whole is never lost, the next start goes on from the newest, the losses are those of the
undisturbed run, nothing is left over.
"""

import contextlib
import math
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import psutil

from megadec.common.config import parse, take_options, to_dict, to_yaml
from megadec.common.errors import CheckpointError, ConfigError, TrainingError
from megadec.common.files import storage_errors, write_json
from megadec.common.log import logger
from megadec.engine.checkpoint.manifest import newest_whole
from megadec.engine.metrics.options import FILE_NAME
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.train_options import resolve_precision
from megadec.rehearse.disturbances import (
    DAMAGE,
    KINDS,
    LAUNCHER,
    STARTING,
    Attempt,
    Disturbance,
    Kind,
    NotSeenError,
    RehearsalOptions,
    choose,
    damaged,
    disturb,
    read_lines,
)
from megadec.rehearse.scale import scale, scaled_settings, with_links

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "pretrain.py"
OWN_NAMES = {field.name for field in fields(RehearsalOptions)}
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
    """A rehearsal. run: as it was scaled down; steps: of it."""

    run: Mapping[str, Any]
    seed: int
    steps: int
    tolerance: float
    rows: Sequence[Outcome]
    undisturbed_loss: float
    final_loss: float | None
    seconds: float

    @property
    def problems(self) -> dict[int, list[str]]:
        """What is wrong, by row; empty when all is as it must be."""
        return {row.number: wrong for row in self.rows if (wrong := judge(row, self.tolerance, self.steps))}

    @property
    def counts(self) -> dict[str, int]:
        """What was done how often, kills by place."""
        return dict(Counter(f"kill {row.place}" if row.kind == "kill" else row.kind for row in self.rows if row.kind))

    def to_json(self) -> dict[str, Any]:
        """As plain values, with what follows from them."""
        rows = [{**to_dict(row), "steps_lost": row.steps_lost} for row in self.rows]
        return {**to_dict(self), "rows": rows, "problems": self.problems, "counts": self.counts}


def rehearse(run: PretrainRun, deepspeed: Path, options: RehearsalOptions) -> RehearsalReport:
    """Run it undisturbed, then with every disturbance, then to its end; a report of what happened.

    Raises ConfigError for a run or options that cannot be, TrainingError when the undisturbed run does not train.
    """
    folder = options.folder
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: a rehearsal begins in a folder of its own")
    folder = folder or Path(tempfile.mkdtemp(prefix="rehearsal-"))
    # SIGTERM ends the rehearsal as Ctrl-C does: with every process that it has started.
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        rehearsal = Rehearsal(run, deepspeed, options, folder.resolve())
        if options.damaged_shards and not rehearsal.shards:
            raise ConfigError("no shards of data.train lie on this machine to be damaged: say --damaged_shards 0")
        report = rehearsal.play()
    finally:
        signal.signal(signal.SIGTERM, former)
    if report.problems:
        log.info("the runs and their output stay in %s", folder)
    elif options.folder is None:
        shutil.rmtree(folder)
    return report


class Rehearsal:
    """The files of a rehearsal below `folder`, and what is known of the run so far.

    run: as the launcher takes it. shards: the links to the tars of training, which can be damaged. Raises ConfigError
    for a run or options that cannot be.
    """

    def __init__(self, run: PretrainRun, deepspeed: Path, options: RehearsalOptions, folder: Path) -> None:
        self.run_file, self.logs, self.deepspeed_files = folder / "run.yaml", folder / "output", list[Path]()
        with storage_errors(folder):
            self.logs.mkdir(parents=True, exist_ok=True)
            scaled = scale(run, options)
            self.run = replace(with_links(scaled, folder / "shards"), output_folder=str(folder / "runs"))
            self.run_file.write_text(to_yaml(self.run), encoding="utf-8")
            for number, file in enumerate((deepspeed, *options.other_deepspeed)):
                self.deepspeed_files.append(folder / f"deepspeed-{number}-{file.name}")
                write_json(self.deepspeed_files[-1], scaled_settings(file, options))
        self.shards = sorted(folder.glob("shards/*/*/*.tar"))
        self._options, self._steps, self._rows = options, self.run.train.steps, list[Outcome]()
        usual = TOLERANCES[resolve_precision(self.run.train.precision)]
        self._tolerance = usual if options.tolerance is None else options.tolerance

    def play(self) -> RehearsalReport:
        """All starts."""
        began = time.monotonic()
        self._run_undisturbed()
        for what in choose(self._options, evaluates=bool(self.run.evaluate.sets)):
            self._start(what)
            if len(self._rows) >= HOPELESS and all(row.error for row in self._rows[-HOPELESS:]):
                log.error("giving up: %d starts in a row did not come to their disturbance", HOPELESS)
                break
        self._start(Disturbance(None, "before", 0, 0, 0.0, self._options.all_ranks[0]))
        return RehearsalReport(
            run=to_dict(self.run),
            seed=self._options.seed,
            steps=self._steps,
            tolerance=self._tolerance,
            rows=self._rows,
            undisturbed_loss=self._undisturbed["train", self._steps],
            final_loss=losses_of(read_lines(self.run.folder / FILE_NAME)).get(("train", self._steps)),
            seconds=time.monotonic() - began,
        )

    def _attempt(self, name: str, folder: Path, ranks: int, deepspeed: int, *options: str) -> Attempt:
        """Start the run in `folder` with the DeepSpeed file of this number. name: of the file for its output."""
        files = ["--deepspeed", str(self.deepspeed_files[deepspeed]), "--config", str(self.run_file)]
        command = [str(SCRIPT), *files, f"--name={folder.name}", *options]
        return Attempt(command, ranks, folder, self.logs / name, self._options.patience_seconds)

    def _run_undisturbed(self) -> None:
        folder, began = self.run.folder.with_name("undisturbed"), time.monotonic()
        log.info("undisturbed: %d steps in %s", self._steps, folder)
        with self._attempt("undisturbed", folder, self._options.all_ranks[0], 0) as start:
            with contextlib.suppress(NotSeenError):  # its output says why
                start.wait_for_step()
            seconds = time.monotonic() - began
            status, _ = start.wait_for_end()
        self._undisturbed = losses_of(read_lines(folder / FILE_NAME))
        if status or ("train", self._steps) not in self._undisturbed:
            end = start.output[-SHOWN_OUTPUT:]
            raise TrainingError(f"the undisturbed run ended with {status}; its output, {start.log}, ends:\n{end}")
        self._pace = start.pace(seconds)

    def _start(self, what: Disturbance) -> None:
        """Start the run, let happen what is to happen, and collect the facts."""
        kind = KINDS[what.kind]
        file, says = self.deepspeed_files[what.deepspeed], kind.says
        row = Outcome(len(self._rows) + 1, what.ranks, file.name, what.words, what.kind, what.victim)
        row.whole_before = self._whole_step()
        with contextlib.ExitStack() as stack:
            if what.kind in DAMAGE:
                shard = self.shards[int(what.fraction * len(self.shards))]
                says = f"{shard.parent.name}/{shard.name}"
                row.done += f": {says}"
                stack.enter_context(damaged(shard, cut=what.kind == "cut shard"))
            start = self._attempt(f"{row.number:03d}", self.run.folder, what.ranks, what.deepspeed, *kind.options)
            stack.enter_context(start)
            try:
                row.place = disturb(start, what, self._pace)
                row.status, row.seconds = start.wait_for_end()
            except (NotSeenError, psutil.NoSuchProcess) as error:
                row.error = f"{error}; see {start.log}"
        trained = start.lines("train")
        row.at_step = max([row.whole_before, *(line["step"] for line in trained)])
        row.whole = self._whole_step()
        row.loss_difference = difference(losses_of([*trained, *start.lines("evaluate")]), self._undisturbed)
        row.said = says in start.output
        row.left = unfinished_in(self.run.folder)
        # What the starts before have left is known when one went on from somewhere.
        went_on = went_on_from(start.output, bool(trained))
        for earlier in self._rows:
            if went_on is not None and earlier.went_on_from is None:
                earlier.went_on_from = went_on
                earlier.left_over = tuple(sorted({*earlier.left} & {*row.left}))
        if what.kind is None:
            self._finish(row)
        self._rows.append(row)
        log.info(
            "%d: %s; %s at step %d, ended with %s after %.1f s; step %d is whole, %d unfinished file(s) or folder(s)",
            row.number, row.done, row.place, row.at_step, row.status, row.seconds, row.whole, len(row.left),
        )  # fmt: skip
        for wrong in judge(row, self._tolerance, self._steps):
            log.error("%d: %s", row.number, wrong)

    def _finish(self, row: Outcome) -> None:
        """What must hold for the whole run when its last start has ended."""
        lines = read_lines(self.run.folder / FILE_NAME)
        row.went_on_from, row.left_over = row.whole, row.left
        row.loss_difference = max(row.loss_difference, difference(losses_of(lines), self._undisturbed))
        if [line["step"] for line in lines if line["kind"] == "train"] != list(range(1, self._steps + 1)):
            row.error = f"{row.error}; metrics.jsonl does not have every step once".removeprefix("; ")

    def _whole_step(self) -> int:
        """The step of the newest checkpoint whose every file is as its manifest says; 0 where there is none."""
        try:
            newest = newest_whole(self.run.checkpoints)
        except CheckpointError as all_damaged:
            log.error("%s", all_damaged)
            return 0
        return newest[1]["step"] if newest else 0


def losses_of(lines: Sequence[Mapping[str, Any]]) -> Losses:
    """Every loss in lines of metrics.jsonl, of steps and of held-out sets."""
    names = ((line, "train" if line["kind"] == "train" else f"evaluate/{line.get('set')}") for line in lines)
    return {(name, line["step"]): line["loss"] for line, name in names if line["kind"] in ("train", "evaluate")}


def went_on_from(output: str, trained: bool) -> int | None:
    """The step of the checkpoint that a start went on from by its output; 0: it began; None: it did not come so far."""
    if found := re.search(r"going on from .*/step_(\d+)", output):
        return int(found[1])
    return 0 if trained else None


def unfinished_in(folder: Path) -> tuple[str, ...]:
    """Files and folders under hidden names in a run's folder: what is being written, or was when its writer ended."""
    found = [*folder.glob(".*"), *folder.glob("checkpoints/.*")]
    return tuple(sorted(str(path.relative_to(folder)) for path in found))


def difference(losses: Losses, undisturbed: Losses) -> float:
    """The largest relative difference; infinite where the undisturbed run has no such figure."""
    pairs = [(loss, undisturbed.get(key, math.nan)) for key, loss in losses.items()]
    found = (abs(loss - other) / abs(other) for loss, other in pairs)
    return max((math.inf if math.isnan(value) else value for value in found), default=0.0)


def judge(row: Outcome, tolerance: float, last_step: int) -> list[str]:
    """What is wrong with a row, in words. last_step: of the run.

    Where nothing kept it from going as planned, what was done must have the end that belongs to it.
    """
    kind, step, whole = row.kind, row.at_step, row.whole
    rules = [
        (row.error != "", row.error),
        (whole < row.whole_before, f"the checkpoint of step {row.whole_before} was whole and is not any more"),
        (row.went_on_from not in (None, whole), f"went on from step {row.went_on_from}, and step {whole} was whole"),
        (not row.loss_difference <= tolerance, f"a loss differs by {row.loss_difference:.2g}, more than {tolerance:g}"),
        (row.left_over != (), f"left over: {', '.join(row.left_over)}"),
    ]
    fails = kind in ("kill", *DAMAGE, "full disk") or row.victim == LAUNCHER
    saves_and_ends = kind in ("stop", "full disk for a while")
    too_early = kind == "kill" and row.place == STARTING
    went_on = step - row.whole_before
    rules_of_kind = [
        (fails == (row.status == 0), f"ended with {row.status}"),
        (saves_and_ends and whole != step, f"was asked to stop at step {step}, and saved step {whole}"),
        (too_early and went_on > LAST_STEPS, f"was killed before its first step, and did {went_on} steps"),
        (not row.said, "did not say what was wrong"),
        (kind == "full disk" and row.left != (), f"left {', '.join(row.left)} on the full disk"),
        (
            kind is None and (step, whole) != (last_step, last_step),
            f"ended at step {step} with the checkpoint of step {whole}, not at step {last_step}",
        ),
    ]
    return [words for is_broken, words in [*rules, *([] if row.error else rules_of_kind)] if is_broken]


HEAD = ("", "ranks", "what was done", "where", "at step", "ended", "whole", "went on from", "steps lost",
        "loss difference", "left behind", "left over", "")  # fmt: skip


def table(report: RehearsalReport) -> str:
    """The report as Markdown."""
    rows, problems = report.rows, report.problems
    cells: list[Sequence[object]] = [HEAD, ["---"] * len(HEAD)]
    for row in rows:
        ended = "" if row.status is None else f"{row.status} after {row.seconds:.1f} s"
        went_on = "" if row.went_on_from is None else row.went_on_from
        loss = f"{row.loss_difference:.1g}" if row.loss_difference else "0"
        verdict = "; ".join(problems.get(row.number, ())) or "ok"
        cells.append((
            row.number, row.ranks, row.done, row.place, row.at_step, ended, row.whole, went_on, row.steps_lost,
            loss, len(row.left), len(row.left_over), verdict,
        ))  # fmt: skip
    done = ", ".join(f"{count} x {name}" for name, count in sorted(report.counts.items()))
    again = sum(row.steps_lost for row in rows)
    worst = max((row.loss_difference for row in rows), default=0.0)
    total = (
        f"{done}; {again} steps done again; largest loss difference {worst:.2g} (allowed: {report.tolerance:g});"
        f" loss of step {report.steps}: {report.final_loss}, undisturbed {report.undisturbed_loss};"
        f" {report.seconds:.0f} s."
    )
    wrong = f"{len(problems)} of {len(rows)} rows are not as they must be."
    end = wrong if problems else f"All {len(rows)} rows are as they must be."
    return "\n".join([*(f"| {' | '.join(map(str, line))} |" for line in cells), "", total, end])


@dataclass(frozen=True)
class RehearsedRun(PretrainRun):
    """A run, and how it is rehearsed: --rehearsal.kills 10 and --kills 10 are the same."""

    rehearsal: RehearsalOptions = field(default_factory=RehearsalOptions)


def main(argv: Sequence[str]) -> None:
    """Rehearse a run as launch/pretrain.py takes it, and print a table of what disturbances cost it.

    --kills is short for --rehearsal.kills, and so on; --seed is that of the rehearsal, the run's own is in its file.
    The user's shards are only read, and no file of the run's own folder is touched. Ends with an error when a row is
    not as it must be: a loss differs from the undisturbed run's, something is left over, no whole checkpoint is there
    to go on from.
    """
    taken, rest = take_options(argv, ("deepspeed",))
    parsed = parse(RehearsedRun, [_prefixed(word) for word in rest], description=main.__doc__ or "")
    if "deepspeed" not in taken:
        raise ConfigError("--deepspeed FILE is missing; ds_configs/README.md says which one when")
    if not SCRIPT.is_file():
        raise ConfigError(f"{SCRIPT} does not exist; a rehearsal starts it: it needs megadec's source tree")
    run = PretrainRun(**{field.name: getattr(parsed, field.name) for field in fields(PretrainRun)})
    report = rehearse(run, Path(taken["deepspeed"]), parsed.rehearsal)
    print(table(report))
    if parsed.rehearsal.output is not None:
        write_json(parsed.rehearsal.output, report.to_json())
    if report.problems:
        raise TrainingError(f"row(s) {', '.join(map(str, report.problems))} are not as they must be")


def _prefixed(word: str) -> str:
    """`--kills` as `--rehearsal.kills`."""
    name = word.removeprefix("--").partition("=")[0].replace("-", "_")
    return f"--rehearsal.{word.removeprefix('--')}" if word.startswith("--") and name in OWN_NAMES else word
