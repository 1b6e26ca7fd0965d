"""A rehearsal: the user's run, scaled down, goes through what can happen, and is compared with itself undisturbed.

It starts the deepspeed launcher as users do, again and again by the same command, and judges each start by few and hard
rules: a checkpoint that was whole is never lost, the next start goes on from the newest, the losses are those of the
undisturbed run, nothing is left over.
"""

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import psutil

from megadec.common.config import parse, take_options, to_dict, to_yaml
from megadec.common.errors import CheckpointError, ConfigError, TrainingError
from megadec.common.files import storage_errors, write_json
from megadec.common.log import logger
from megadec.engine.checkpoint.manifest import newest_whole
from megadec.engine.metrics.options import FILE_NAME
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.train_options import resolve_precision
from megadec.rehearse.acts import damaged, disturb, moved
from megadec.rehearse.attempt import Attempt, NotSeenError, read_lines
from megadec.rehearse.disturbances import DAMAGE, KINDS, Disturbance, RehearsalOptions, choose
from megadec.rehearse.report import (
    Outcome,
    RehearsalReport,
    difference,
    judge,
    losses_of,
    table,
    unfinished_in,
    went_on_from,
)
from megadec.rehearse.scale import scale, scaled_settings, with_links

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "pretrain.py"
OWN_NAMES = {field.name for field in fields(RehearsalOptions)}
TOLERANCES = {"fp32": 1e-5, "bf16": 1e-2}
# After so many starts in a row that could not be disturbed as planned, nothing more is to be learned.
HOPELESS = 3
SHOWN_OUTPUT = 3000
SHARDS = "shards"

log = logger(__name__)


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
        if options.moves and not rehearsal.shards:
            raise ConfigError("no shards of data.train lie on this machine to be moved: say --moves 0")
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
            self.run = replace(with_links(scaled, folder / SHARDS), output_folder=str(folder / "runs"))
            self.run_file.write_text(to_yaml(self.run), encoding="utf-8")
            for number, file in enumerate((deepspeed, *options.other_deepspeed)):
                self.deepspeed_files.append(folder / f"deepspeed-{number}-{file.name}")
                write_json(self.deepspeed_files[-1], scaled_settings(file, options))
        self.shards = sorted(folder.glob(f"{SHARDS}/*/*/*.tar"))
        self._options, self._steps, self._rows = options, self.run.train.steps, list[Outcome]()
        self._named: str | None = None
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
        seconds: list[str] = []
        with contextlib.ExitStack() as stack:
            more = list(kind.options)
            if what.kind in DAMAGE:
                shard = self.shards[int(what.fraction * len(self.shards))]
                says = f"{shard.parent.name}/{shard.name}"
                row.done += f": {says}"
                stack.enter_context(damaged(shard, cut=what.kind == "cut shard"))
            elif what.kind == "moved shards":
                more.extend(stack.enter_context(moved(self.run_file.with_name(SHARDS), self.run)))
            elif what.kind == "named resume":
                more += self._name_checkpoint()
            start = self._attempt(f"{row.number:03d}", self.run.folder, what.ranks, what.deepspeed, *more)
            stack.enter_context(start)
            try:
                row.place = disturb(start, what, self._pace, lambda: seconds.append(self._start_again(row, what)))
                row.status, row.seconds = start.wait_for_end()
            except (NotSeenError, psutil.NoSuchProcess) as error:
                row.error = f"{error}; see {start.log}"
        trained = start.lines("train")
        row.at_step = max([row.whole_before, *(line["step"] for line in trained)])
        row.whole = self._whole_step()
        row.loss_difference = difference(losses_of([*trained, *start.lines("evaluate")]), self._undisturbed)
        row.said = says in "".join(seconds or [start.output])
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

    def _start_again(self, row: Outcome, what: Disturbance) -> str:
        """What a second start in the run's folder says when it is refused."""
        with self._attempt(f"{row.number:03d}-second", self.run.folder, what.ranks, what.deepspeed) as second:
            status, _ = second.wait_for_end()
            return second.output if status else ""

    def _name_checkpoint(self) -> list[str]:
        """The option that names the newest checkpoint, or, every second time, what it named before."""
        if self._named is not None:
            named, self._named = self._named, None
        elif found := newest_whole(self.run.checkpoints):
            named = self._named = str(found[0])
        else:
            return []
        return [f"--checkpoint.resume={named}"]

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
