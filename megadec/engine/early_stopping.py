"""The best checkpoint of a run, and when to stop looking for a better one.

In come the figures of each evaluation, out go the best step so far and whether to end. One figure of one set decides;
what else was measured is in metrics.jsonl.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megadec.common.errors import CheckpointError, ConfigError, check_choice, check_range
from megadec.common.files import read_json, write_json
from megadec.engine.metrics.reports import Evaluation

BEST_FILE = "best.json"


@dataclass(frozen=True)
class EarlyStopping:
    """Which checkpoint is the best, and when to stop for want of a better one.

    metric: `SET/FIGURE` of the evaluations, such as dev/accuracy; null: no checkpoint counts as better.
    patience: stop after this many evaluations in a row without a better figure; 0: never.
    higher_is_better: false for a loss.
    """

    metric: str | None = None
    patience: int = 0
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        check_range(self, "early_stopping.", "patience", least=0)
        if self.metric is not None and "/" not in self.metric:
            raise ConfigError(f"early_stopping.metric={self.metric!r} is not SET/FIGURE, such as dev/accuracy")
        if self.metric is None and self.patience:
            raise ConfigError(f"early_stopping.patience={self.patience} without a metric: name what must get better")


@dataclass(frozen=True)
class Best:
    """step: of the best evaluation so far, -1 for none; waited: evaluations since then."""

    step: int = -1
    value: float | None = None
    waited: int = 0


def after_evaluation(options: EarlyStopping, best: Best, step: int, evaluations: Sequence[Evaluation]) -> Best:
    """The best after the evaluations of `step`. Raises ConfigError when they have no such figure."""
    if options.metric is None:
        return best
    figures = {f"{found.name}/{key}": value for found in evaluations for key, value in found.values.items()}
    check_choice("early_stopping.metric", options.metric, sorted(figures))
    value = figures[options.metric]
    # Untrained weights are nobody's best, and a step that is measured again after a resume does not count twice.
    if step in (0, best.step):
        return best
    gained = best.value is None or (value > best.value if options.higher_is_better else value < best.value)
    return Best(step, value) if gained else replace(best, waited=best.waited + 1)


def should_stop(options: EarlyStopping, best: Best) -> bool:
    """Whether the run has waited long enough for a better figure."""
    return 0 < options.patience <= best.waited


def write_best(folder: Path, options: EarlyStopping, best: Best) -> None:
    """Write `folder`/best.json: the step, the metric and its value. Raises StorageError."""
    write_json(folder / BEST_FILE, {"step": best.step, "metric": options.metric, "value": best.value})


def read_best(folder: Path) -> dict[str, Any] | None:
    """What `write_best` wrote, or None where there is none. Raises CheckpointError."""
    if not (folder / BEST_FILE).is_file():
        return None
    values = read_json(folder / BEST_FILE, CheckpointError)
    if not isinstance(values, dict) or not isinstance(values.get("step"), int):
        raise CheckpointError(f"{folder / BEST_FILE} has no 'step'; it names a run's best checkpoint")
    return values
