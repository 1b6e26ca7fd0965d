"""Which step was the best, and when a run has waited long enough."""

from pathlib import Path

import pytest

from megadec.common.errors import CheckpointError, ConfigError
from megadec.engine.early_stopping import Best, EarlyStopping, after_evaluation, read_best, should_stop, write_best
from megadec.engine.metrics.reports import Evaluation

WATCH = EarlyStopping(metric="dev/accuracy", patience=2)


def measured(step: int, accuracy: float) -> list[Evaluation]:
    return [Evaluation(step, "dev", {"loss": 1.0, "accuracy": accuracy}, 0.1)]


def walk(options: EarlyStopping, values: list[float]) -> Best:
    best = Best()
    for number, value in enumerate(values):
        best = after_evaluation(options, best, number * 10, measured(number * 10, value))
    return best


def test_the_best_step_is_the_first_of_the_highest_and_untrained_weights_are_never_it() -> None:
    assert walk(WATCH, [0.9, 0.1, 0.4, 0.4]) == Best(20, 0.4, 1)
    assert walk(EarlyStopping(metric="dev/accuracy", higher_is_better=False), [0.0, 0.1, 0.4, 0.4]) == Best(10, 0.1, 2)


def test_a_run_ends_after_as_many_evaluations_without_gain_as_its_patience() -> None:
    assert not should_stop(WATCH, walk(WATCH, [0.0, 0.5, 0.4]))
    assert should_stop(WATCH, walk(WATCH, [0.0, 0.5, 0.4, 0.5]))
    assert not should_stop(EarlyStopping(metric="dev/accuracy"), walk(WATCH, [0.0, 0.5, 0.4, 0.5]))
    best = Best(10, 0.5)
    assert after_evaluation(WATCH, best, 10, measured(10, 0.5)) == best, "measured again after a resume"


def test_a_figure_that_nobody_measures_is_refused_at_the_first_evaluation_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"'dev/acuracy' is none of .* \(did you mean 'dev/accuracy'\?\)"):
        after_evaluation(EarlyStopping(metric="dev/acuracy"), Best(), 0, measured(0, 0.5))


@pytest.mark.parametrize("wrong", [{"patience": 3}, {"metric": "accuracy"}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="early_stopping"):
        EarlyStopping(**wrong)  # type: ignore[arg-type]


def test_the_best_step_is_read_back_and_a_file_without_one_is_refused(tmp_path: Path) -> None:
    assert read_best(tmp_path) is None
    write_best(tmp_path, WATCH, Best(20, 0.5))
    assert read_best(tmp_path) == {"step": 20, "metric": "dev/accuracy", "value": 0.5}
    (tmp_path / "best.json").write_text("{}")
    with pytest.raises(CheckpointError, match="'step'"):
        read_best(tmp_path)
