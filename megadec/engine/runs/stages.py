"""Stages: what a run changes on its way, with weights, moments and everything else kept.

In come the stages of a run file, each with the keys that it changes from its first step on; out comes, for each, the
run as it is then. Plain mappings do the merging, so that a run in a checkpoint and the one that wants to go on from it
are compared in the same way, whatever keys have been added since.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from megadec.common.config import from_dict, to_dict
from megadec.common.errors import ConfigError, check_range, suggest
from megadec.data.card import without_card
from megadec.engine.runs.common import START, CommonRun, Stage

# What no tensor depends on. A key stands for all below it.
MAY_CHANGE = (
    "data.train", "data.max_epochs", "data.sequence_length", "data.packing", "train.global_batch_size",
    "train.micro_batch_size", "train.steps", "schedule", "optimizer.learning_rate", "optimizer.weight_decay",
    "optimizer.beta1", "optimizer.beta2", "optimizer.epsilon", "optimizer.max_grad_norm", "model.dropout",
    "model.shape.rope_theta", "model.shape.rope_scaling", "model.shape.max_position_embeddings",
)  # fmt: skip
# Mappings that are one value: a mixture has the sets that it names, and no others; and names may have dots in them.
WHOLE = ("data.train", "data.max_epochs", "evaluate.sets", "model.shape.rope_scaling")
SECTIONS = ("data", "train", "schedule", "optimizer", "model")
# The options that say how a run changes course, and nothing about one stage.
OPTIONS = ("stage", "stages")


@dataclass(frozen=True)
class StageOptions:
    """A stage of a run: from step `first_step` on, counted from 1, these keys of the run are others.

    data, train, schedule, optimizer and model: the keys of these sections that change, and stay so in later stages;
        `card` of data gives a stage its mixture.
    With a schedule of its own a stage counts the steps of the schedule from its first one, up to its train.steps.
    """

    name: str
    first_step: int
    data: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or self.name == START:
            raise ConfigError(
                f"stages: name={self.name!r} is not free: the run itself, before its stages, is {START!r}"
            )
        check_range(self, f"stages: {self.name}: ", "first_step", least=2)
        object.__setattr__(self, "data", without_card(self.data, f"stages: {self.name}: data."))
        for key, value in flat({section: getattr(self, section) for section in SECTIONS}):
            if value != {} and not may_change(key):
                raise ConfigError(
                    f"stages: {self.name}: {key} cannot change in the middle of a run{suggest(key, MAY_CHANGE)};"
                    f" a stage may change {', '.join(MAY_CHANGE)}"
                )


class StageValues(NamedTuple):
    """A stage as plain values: what the whole run says in it."""

    name: str
    first_step: int
    schedule_first_step: int
    values: dict[str, Any]


def check_order(stages: Sequence[StageOptions]) -> None:
    """Raise ConfigError unless every stage has a name of its own and begins after the one before it."""
    for number, (before, after) in enumerate(pairwise(stages), start=1):
        if after.first_step <= before.first_step:
            raise ConfigError(
                f"stages: {after.name} begins at step {after.first_step} and {before.name}, which stands before it, at"
                f" step {before.first_step}: stages stand in the order of their steps"
            )
        if after.name in [one.name for one in stages[:number]]:
            raise ConfigError(f"stages: {after.name} stands twice; a stage is known by its name")


def stage_values(run: Mapping[str, Any]) -> list[StageValues]:
    """Every stage of a run that is given as plain values, the first of which is the run itself."""
    values = {key: value for key, value in run.items() if key not in OPTIONS}
    found = [StageValues(START, 1, 1, values)]
    for stage in run.get("stages", ()):
        before = found[-1]
        changes = {section: stage[section] for section in SECTIONS if stage.get(section)}
        schedule = stage["first_step"] if "schedule" in changes else before.schedule_first_step
        found.append(StageValues(stage["name"], stage["first_step"], schedule, _merged(before.values, changes)))
    return found


def changes_of(run: CommonRun) -> tuple[Stage, ...]:
    """The stages after the first, each with the run as it is then.

    Raises ConfigError for values that a run may not have, and for a stage that begins behind the last step.
    """
    stages = []
    for one in stage_values(to_dict(run))[1:]:
        try:
            changed = from_dict(type(run), one.values)
        except ConfigError as error:
            raise ConfigError(f"stages: {one.name}: {error}") from error
        stages.append(Stage(one.name, one.first_step, changed, one.schedule_first_step))
        if one.first_step > changed.train.steps:
            raise ConfigError(
                f"stages: {one.name} begins at step {one.first_step}, behind the last one (train.steps="
                f"{changed.train.steps}): the last step of a run is train.steps of its last stage"
            )
    return tuple(stages)


def may_change(key: str) -> bool:
    """Whether a stage may change a key such as `data.train` or `schedule.kind`."""
    return f"{key}.".startswith(tuple(f"{one}." for one in MAY_CHANGE))


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its whole key, `data.sequence_length`; an empty mapping is a value."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name not in WHOLE:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `flat` made flat, as it was."""
    whole: dict[str, Any] = {}
    for name, value in values.items():
        *sections, key = name.split(".")
        place = whole
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return whole


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        before, name = values.get(key), f"{prefix}{key}"
        if isinstance(value, Mapping) and isinstance(before, Mapping) and name not in WHOLE:
            value = _merged(before, value, f"{name}.")
        merged[key] = value
    return merged
