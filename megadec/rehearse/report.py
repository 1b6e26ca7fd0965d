"""What a rehearsal has seen: a row for each start, what is wrong with it, and the table."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megadec.common.config import to_dict
from megadec.rehearse.acts import STARTING
from megadec.rehearse.disturbances import DAMAGE, LAUNCHER, SAVED, Kind

# A run whose launcher is gone does the step that is under way, and may have begun another before it looks.
LAST_STEPS = 2

Losses = Mapping[tuple[str, int], float]
"""By what was measured (`train`, or the name of a held-out set) and step."""


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
    saves_and_ends = kind in SAVED
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
