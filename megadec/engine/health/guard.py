"""The guard before each update: is the step's loss and gradient fit to change the weights, and what if not.

In come what a step found over all ranks and the history of losses and norms; out comes nothing, or an anomaly with the
action that the run configured: report, skip, roll back, stop. Everything here is a pure function of numbers that are
the same on every rank, and the history is part of the checkpoint, so all ranks, and a resumed run, decide alike.

What follows from an anomaly stands in the loop. A skipped step counts as a step (data and schedule go on) and changes
nothing else. A roll-back loads the newest whole checkpoint and goes on behind the offending step: the weights are those
of the checkpoint, the step number and the data are not, so the batches between are left out, and every step still has
the batch of its number. What was learned since that checkpoint is lost too, as nobody knows since when the weights were
bad.

A spike is a value above median + factor * spread of the last `window` good steps, the spread being 1.4826 times the
median distance from the median (what a standard deviation is for normal noise), and at least 2 % of the median. Values
that were refused are not added, so a series of bad steps does not become the new normal; limits end it. The median of a
falling loss is above the loss, so a spike early in a run must be larger to be seen.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from megadec.common.errors import ConfigError, check_range
from megadec.engine.metrics.reports import Action, Anomaly, Kind, StepReport

if TYPE_CHECKING:  # the options are read without torch
    from megadec.engine.ranks import Ranks

SpikeAction = Literal["off", "report", "skip", "roll_back", "stop"]

NORMAL_SPREAD = 1.4826
SMALLEST_SPREAD = 0.02
SHOWN_DOCUMENTS = 6
# A stream's `documents`: (step, rank, world size) -> ids.
ReadDocuments = Callable[[int, int, int], Sequence[str]]
# What was done by action, from the weakest to the strongest.
DONE = {
    "report": "the update was made",
    "skip": "no rank updated its weights",
    "roll_back": "no rank updated its weights, and the run rolls back",
    "stop": "the weights were not changed",
}


@dataclass(frozen=True)
class GuardOptions:
    """What to do when a step goes wrong.

    Actions: `report` logs it; `skip` drops the update on every rank; `roll_back` takes the weights of the newest
    checkpoint and continues with the next step; `stop` ends the run with an error, the weights unchanged.

    non_finite: when a loss or gradient of any rank is infinite or not a number.
    loss_spike, gradient_spike: when the loss or the gradient norm is far above its recent values.
    window: how many recent steps are compared with.
    warmup_steps: nothing is a spike before this many values are known.
    loss_factor, gradient_factor: how far above, in spreads of the window.
    skips_in_a_row, skips, roll_backs: more than this many end the run.
    stall_seconds: a rank that makes no progress for this long reports where it is and which rank is late; 0: never,
        and a rank that is killed is not named either.
    """

    non_finite: Action = "stop"
    loss_spike: SpikeAction = "report"
    gradient_spike: SpikeAction = "report"
    window: int = 128
    warmup_steps: int = 64
    loss_factor: float = 10.0
    gradient_factor: float = 20.0
    skips_in_a_row: int = 5
    skips: int = 100
    roll_backs: int = 3
    stall_seconds: float = 600.0

    def __post_init__(self) -> None:
        check_range(self, "guard.", "skips_in_a_row", "skips", "roll_backs", "stall_seconds", least=0)
        check_range(self, "guard.", "loss_factor", "gradient_factor", above=0)
        if not 2 <= self.warmup_steps <= self.window:
            raise ConfigError(f"guard.warmup_steps={self.warmup_steps} is not from 2 to guard.window={self.window}")


@dataclass(frozen=True)
class GuardState:
    """What the guard remembers, in every checkpoint.

    `losses`, `norms`: of the last good steps. `skipped`: (first, last) steps whose batches the weights have not
    learned from, because they were skipped or rolled back.
    """

    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    skips_in_a_row: int = 0
    skips: int = 0
    roll_backs: int = 0
    skipped: tuple[tuple[int, int], ...] = ()


def detect(options: GuardOptions, state: GuardState, seen: StepReport) -> Anomaly | None:
    """What is wrong with a step, or None. Pure.

    Of several findings the one with the strongest action, for a spike that is only reported must not let another one's
    update through; its words tell the others too.
    """
    found = [*_not_finite(options, seen), *_spikes(options, state, seen)]
    if not found:
        return None
    strongest = max(found, key=lambda anomaly: list(DONE).index(anomaly.action))  # the first of those that are alike
    others = [anomaly.words for anomaly in found if anomaly is not strongest]
    return replace(strongest, words="; ".join((strongest.words, *others)))


def _not_finite(options: GuardOptions, seen: StepReport) -> list[Anomaly]:
    """The loss, or where that is finite the gradients: they follow from it."""
    bad = tuple(rank for rank, loss in enumerate(seen.rank_losses) if not math.isfinite(loss))
    if bad or not math.isfinite(seen.loss):
        words = f"the loss is not finite {f'on rank {_listed(bad)}' if bad else 'over all ranks'}"
        return [Anomaly(seen.step, "loss_not_finite", options.non_finite, bad, words)]
    names = {rank: name for rank, name in enumerate(seen.broken) if name}
    if names:
        words = f"on rank {_listed(names)}, first in {_listed(dict.fromkeys(names.values()))}"
    elif not math.isfinite(seen.grad_norm):
        words = (
            "once they are reduced, though those of every rank are: their sum or the communication broke them (norms by"
            f" rank: {_listed(f'{norm:.4g}' for norm in seen.rank_norms)})"
        )
    else:
        return []
    words = f"the gradients are not finite {words}, while the loss is {seen.loss:.4f}"
    return [Anomaly(seen.step, "gradients_not_finite", options.non_finite, tuple(names), words, tuple(names.values()))]


def _spikes(options: GuardOptions, state: GuardState, seen: StepReport) -> list[Anomaly]:
    """Of what is finite: what is not has an anomaly of its own."""
    found = []
    kinds: tuple[tuple[Kind, str, float, tuple[float, ...], tuple[float, ...], float, SpikeAction], ...] = (
        ("loss_spike", "loss", seen.loss, seen.rank_losses, state.losses, options.loss_factor, options.loss_spike),
        ("gradient_spike", "gradient norm", seen.grad_norm, seen.rank_norms, state.norms, options.gradient_factor,
         options.gradient_spike),
    )  # fmt: skip
    for kind, what, value, by_rank, values, factor, action in kinds:
        limit = spike_limit(values, factor, options.warmup_steps)
        if action != "off" and math.isfinite(value) and value > limit:
            worst = by_rank.index(max(by_rank))
            words = (
                f"the {what} is {value:.4g}, above {limit:.4g} (the last {len(values)} good steps have a median of"
                f" {statistics.median(values):.4g}); rank {worst} has the most of it"
            )
            found.append(Anomaly(seen.step, kind, action, (worst,), words))
    return found


def spike_limit(values: Sequence[float], factor: float, warmup_steps: int) -> float:
    """Above this a value is a spike; infinite while fewer than `warmup_steps` values are known."""
    if len(values) < warmup_steps:
        return math.inf
    median = statistics.median(values)
    spread = NORMAL_SPREAD * statistics.median(abs(value - median) for value in values)
    return median + factor * max(spread, SMALLEST_SPREAD * abs(median))


def after_good_step(options: GuardOptions, state: GuardState, loss: float, norm: float) -> GuardState:
    """The state after an update was made."""
    losses, norms = (*state.losses, loss)[-options.window :], (*state.norms, norm)[-options.window :]
    return replace(state, losses=losses, norms=norms, skips_in_a_row=0)


def after_skip(state: GuardState, step: int) -> GuardState:
    """The state after the update of `step` was left out."""
    skipped = _joined(state.skipped, (step, step))
    return replace(state, skips_in_a_row=state.skips_in_a_row + 1, skips=state.skips + 1, skipped=skipped)


def after_roll_back(saved: GuardState, now: GuardState, saved_step: int, step: int) -> GuardState:
    """The state once the weights are those of `saved_step` again and `step` is behind us; what was counted stays."""
    skipped = _joined(now.skipped, (saved_step + 1, step))
    return replace(now, losses=saved.losses, norms=saved.norms, roll_backs=now.roll_backs + 1, skipped=skipped)


def within_limits(options: GuardOptions, state: GuardState, anomaly: Anomaly) -> Anomaly:
    """The anomaly, or one that stops the run where one more skip or roll-back is one too many."""
    limits = {"skip": ("skips_in_a_row", "skips"), "roll_back": ("roll_backs",)}
    for name in limits.get(anomaly.action, ()):
        if getattr(state, name) >= getattr(options, name):
            words = f"{anomaly.words}; guard.{name}={getattr(options, name)} is used up"
            return replace(anomaly, action="stop", words=words)
    return anomaly


def documents_read(read: ReadDocuments, ranks: "Ranks", anomaly: Anomaly) -> dict[int, list[str]]:
    """The documents of each rank that the anomaly names (of all, if it names none), on rank 0 and on those ranks."""
    if ranks.rank not in (0, *anomaly.ranks):
        return {}
    named = anomaly.ranks or range(ranks.world_size)
    return {rank: list(read(anomaly.step - 1, rank, ranks.world_size)) for rank in named}


def describe(anomaly: Anomaly, documents: Mapping[int, Sequence[str]]) -> str:
    """What was found, what was done about it, and which documents were read."""
    words = f"step {anomaly.step}: {anomaly.words}; {DONE[anomaly.action]}"
    for rank, names in list(documents.items())[:SHOWN_DOCUMENTS]:
        more = f" and {len(names) - SHOWN_DOCUMENTS} more" if len(names) > SHOWN_DOCUMENTS else ""
        words += f"; rank {rank} read {', '.join(names[:SHOWN_DOCUMENTS])}{more}"
    return words + (" (metrics.jsonl has all)" if documents else "")


def line_of(anomaly: Anomaly, report: StepReport, documents: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    """The line of kind "guard"; a number that JSON does not know is null."""
    numbers = {"loss": report.loss, "grad_norm": report.grad_norm}
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    read = {str(rank): names for rank, names in documents.items()}
    values = asdict(anomaly)
    return {"found": values.pop("kind"), **values, **finite, "documents": read}


def _joined(ranges: tuple[tuple[int, int], ...], new: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Sorted ranges of steps with one more, those that touch made one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted((*ranges, new)):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
