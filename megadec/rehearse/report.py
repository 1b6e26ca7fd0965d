"""What came of each disturbance, and whether it is as it must be.

In come the facts of each start, out go what is wrong with it and a table that people read. Pure. The rules are few and
hard: a checkpoint that was whole is never lost, the next start goes on from the newest, the losses are those of the
undisturbed run, nothing is left over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from megadec.common.config import to_dict
from megadec.rehearse.choice import LAUNCHER, Kind

STARTING = "while it started"
# A run whose launcher is gone does the step that is under way, and may have begun another before it looks.
LAST_STEPS = 2

Losses = Mapping[tuple[str, int], float]
"""By what was measured (`train`, or the name of a held-out set) and step."""


@dataclass(frozen=True)
class Row:
    """A start of the run. Steps are the run's.

    kind: what was done, None for the last start, which nothing happens to; victim: as in Disturbance. place: where in
    the run it struck. at_step: the last that was done. status, seconds: of the launcher, and until every process was
    gone. whole_before, whole: the newest whole checkpoint before and after, 0 for none; went_on_from: that of the next
    start. said: the run named the shard, or said that it cannot write. left: unfinished files when it had ended;
    left_over: those of them that the next start did not clear away. error: why the rehearsal could not go as planned.
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
class Report:
    """A rehearsal. run: as it was scaled down; steps: of it; problems: by row, empty when all is as it must be."""

    run: Mapping[str, Any]
    seed: int
    steps: int
    tolerance: float
    rows: Sequence[Row]
    undisturbed_loss: float
    final_loss: float | None
    seconds: float
    problems: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values, with what follows from them."""
        rows = [{**to_dict(row), "steps_lost": row.steps_lost} for row in self.rows]
        return {**to_dict(self), "rows": rows, "counts": self.counts}

    @property
    def counts(self) -> dict[str, int]:
        """What was done how often, kills by place."""
        found: dict[str, int] = {}
        for row in self.rows:
            name = f"kill {row.place}" if row.kind == "kill" else row.kind
            if name is not None:
                found[name] = found.get(name, 0) + 1
        return found


def difference(losses: Losses, undisturbed: Losses) -> float:
    """The largest relative difference; infinite where the undisturbed run has no such figure."""
    found = [
        abs(loss - undisturbed[key]) / abs(undisturbed[key]) if key in undisturbed else float("inf")
        for key, loss in losses.items()
    ]
    return max((value if value == value else float("inf") for value in found), default=0.0)


def judge(row: Row, tolerance: float, last_step: int) -> list[str]:
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
    if not row.error:
        wrong += _wrong_of_kind(row, last_step)
    return wrong


def _wrong_of_kind(row: Row, last_step: int) -> list[str]:
    wrong = []
    fails = row.kind in ("kill", "cut shard", "flipped byte", "full disk") or row.victim == LAUNCHER
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


def table(report: Report) -> str:
    """The report as Markdown."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    lines += [_line(_cells(row, report.problems.get(row.number, ()))) for row in report.rows]
    done = ", ".join(f"{count} x {name}" for name, count in sorted(report.counts.items()))
    worst = max((row.loss_difference for row in report.rows), default=0.0)
    lines += [
        "",
        f"{done}; {sum(row.steps_lost for row in report.rows)} steps done again; largest loss difference {worst:.2g}"
        f" (allowed: {report.tolerance:g}); loss of step {report.steps}: {report.final_loss}, undisturbed"
        f" {report.undisturbed_loss}; {report.seconds:.0f} s.",
        f"{len(report.problems)} of {len(report.rows)} rows are not as they must be."
        if report.problems
        else f"All {len(report.rows)} rows are as they must be.",
    ]
    return "\n".join(lines)


def _cells(row: Row, problems: Sequence[str]) -> list[str]:
    ended = "" if row.status is None else f"{row.status} after {row.seconds:.1f} s"
    went_on = "" if row.went_on_from is None else str(row.went_on_from)
    return [
        str(row.number),
        str(row.ranks),
        row.done,
        row.place,
        str(row.at_step),
        ended,
        str(row.whole),
        went_on,
        str(row.steps_lost),
        f"{row.loss_difference:.1g}" if row.loss_difference else "0",
        str(len(row.left)),
        str(len(row.left_over)),
        "; ".join(problems) or "ok",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
