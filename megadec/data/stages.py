"""The stream of a run that changes course: in each stage the batches of a `TrainStream` of its own.

Every stage is a pure function of the run's step, so the whole is one too, and a loader that works ahead crosses from
one into the next without being told. What was trained is fixed; a stage that has not begun may still be another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megadec.common.errors import ConfigError
from megadec.data.batch import TokenBatch
from megadec.data.dataset import DataSet
from megadec.data.resumable import ResumableStream
from megadec.data.skip_documents import find_skipped
from megadec.data.stream import TrainStream, Window, shards_left_out


@dataclass(eq=False)
class StagedStream(ResumableStream):
    """The steps of all stages, the first of which begins with step 0.

    sets: every data set once, in the order in which stages name them first. stages: by the step that they begin with.
    """

    sets: Sequence[DataSet]
    stages: Sequence[TrainStream]

    def at(self, step: int) -> TrainStream:
        """The stage that step `step` (from 0) belongs to."""
        return self.begun(step + 1)[-1]

    def begun(self, steps: int) -> list[TrainStream]:
        """The stages that have begun once so many steps are done; the first one always has."""
        return [self.stages[0], *(one for one in self.stages[1:] if one.first_step < steps)]

    @property
    def windows_per_epoch(self) -> int:
        """Of the first stage; `at` gives another."""
        return self.stages[0].windows_per_epoch

    @property
    def skip_documents(self) -> frozenset[str]:
        """The ids of documents without weight in the loss, the same in every stage."""
        return frozenset(self.stages[0].skip_documents)

    def find_skipped(self) -> None:
        """Look up skip_documents now, in every set once. Raises ConfigError for an id that stands in none, ShardError
        for a shard that cannot be read.
        """
        found = dict(zip(map(id, self.sets), find_skipped(self.sets, self.skip_documents), strict=True))
        for stage in self.stages:
            stage.take_skipped([found[id(data)] for data, _ in stage.sets])

    def batch(
        self, step: int, rank: int = 0, world_size: int = 1, micro_batch_size: int | None = None
    ) -> list[TokenBatch]:
        """As `TrainStream.batch` of the step's stage, whose sizes the arguments must fit."""
        return self.at(step).batch(step, rank, world_size, micro_batch_size)

    def documents(self, step: int, rank: int = 0, world_size: int = 1) -> list[str]:
        """As `TrainStream.documents` of the step's stage."""
        return self.at(step).documents(step, rank, world_size)

    def windows_of(self, step: int) -> list[Window]:
        """As `TrainStream.windows_of` of the step's stage, by the numbers of that stage's sets."""
        return self.at(step).windows_of(step)

    def skipped_shards(self) -> list[list[str]]:
        """By set of `sets`, the sha256 of each shard that is left out."""
        return [shards_left_out(data) for data in self.sets]

    def description(self) -> dict[str, Any]:
        """Of every stage by its name."""
        return {stage.stage: stage.description() for stage in self.stages}

    def state(self, step: int) -> dict[str, Any]:
        """That of the stage which the last of `step` steps belongs to; in a later stage than the first, `stages` has
        what all that have begun depend on."""
        begun = self.begun(step)
        state = {**begun[-1].state(step), "skipped": self.skipped_shards()}
        if len(begun) == 1:
            return state
        stages = [{"name": one.stage, "fingerprint": one.fingerprint, "stream": one.description()} for one in begun]
        return {**state, "stages": stages}

    def check(self, state: Mapping[str, Any]) -> int:
        """The step to go on with from a saved `state`; only the stages that had begun are compared.

        Raises ConfigError and ShardError as `TrainStream.raise_difference` does, and when other stages had begun.
        """
        step = int(state["step"])
        begun, saved = self.begun(step), state.get("stages", [state])
        if len(begun) != len(saved):
            raise ConfigError(f"{len(begun)} stage(s) begin up to step {step}, and the checkpoint has {len(saved)}")
        for stream, before in zip(begun, saved, strict=True):
            if before["fingerprint"] != stream.fingerprint:
                stream.raise_difference(before["stream"], stream.description())
        return step
