"""Numbers outside of their limits are refused by their key."""

import math
from typing import Any

import pytest

from megadec.common.errors import ConfigError
from megadec.engine.early_stopping import EarlyStopping
from megadec.engine.evaluate_options import EvaluateOptions
from megadec.engine.health.guard import GuardOptions
from megadec.engine.metrics.options import MetricsOptions
from megadec.engine.optimizer import OptimizerOptions
from megadec.engine.runs.common import CheckpointOptions
from megadec.engine.runs.pretrain import DataOptions
from megadec.engine.schedule import ScheduleOptions
from megadec.engine.train_options import TrainOptions

WRONG: list[tuple[str, Any, dict[str, float]]] = [
    ("train", TrainOptions, {"steps": 0, "micro_batch_size": 0, "stop_at_step": 0, "sequence_parallel_size": 0}),
    ("checkpoint", CheckpointOptions, {"interval_steps": -1, "keep_last": 0, "keep_every": 75, "retries": -1}),
    ("evaluate", EvaluateOptions, {"interval_steps": 0, "windows": 0, "micro_batch_size": 0}),
    ("schedule", ScheduleOptions, {"warmup_steps": -1, "final_fraction": 1.5, "decay_fraction": -0.1}),
    ("optimizer", OptimizerOptions, {"learning_rate": 0.0, "weight_decay": -1.0, "beta2": 1.0, "max_grad_norm": -0.5}),
    ("guard", GuardOptions, {"skips": -1, "stall_seconds": -0.5, "loss_factor": 0.0, "warmup_steps": 200}),
    ("guard", GuardOptions, {"warmup_steps": 1}),
    ("metrics", MetricsOptions, {"peak_flops": 0.0}),
    ("early_stopping", EarlyStopping, {"patience": -1}),
    ("data", DataOptions, {"workers": -1, "prefetch_steps": 0, "bad_shards": -1}),
    *(("data", DataOptions, {"bad_shards": value}) for value in (-0.1, 1.0, 2.5, math.nan)),
]


@pytest.mark.parametrize(
    ("section", "kind", "key", "value"), [(*where, *wrong) for *where, values in WRONG for wrong in values.items()]
)
def test_a_number_outside_of_its_limits_is_refused_by_its_key(section: str, kind: Any, key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.{key}={value} is n(ot|either|egative)"):
        kind(**{key: value})


def test_what_is_to_stay_must_be_saved_first() -> None:
    CheckpointOptions(interval_steps=50, keep_every=200)
    for interval_steps, keep_every in ((50, 75), (0, 100)):
        with pytest.raises(ConfigError, match=f"keep_every={keep_every} is not a multiple"):
            CheckpointOptions(interval_steps=interval_steps, keep_every=keep_every)
