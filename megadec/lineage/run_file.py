"""A pretraining run read back from where it left itself.

In: a run's folder, one of its checkpoints, or a YAML file. Out: its sequence of steps, as each was read. The shards
must be those that the checkpoint was trained on; a YAML file that lies in none says nothing of that. Shards are found
under the paths that the run was started with, so relative ones hold from the same folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from megadec.common.config import from_yaml
from megadec.common.errors import CheckpointError
from megadec.common.files import read_json
from megadec.data.index import DataSet
from megadec.data.shard_cache import DamagedShardError
from megadec.data.stream import TrainStream
from megadec.engine.checkpoint.manifest import MANIFEST, RUN_FILE, checkpoints_in
from megadec.engine.checkpoint.skipped import Skipped
from megadec.engine.runs.common import CHECKPOINTS
from megadec.engine.runs.pretrain import Run, open_sets, stream_of

KEPT_STREAMS = 4
Shards = tuple[tuple[str, ...], ...]
"""By data set, the sha256 of some of its shards."""


def run_file_of(path: Path) -> Path:
    """The YAML file of a run: `path` itself, a checkpoint's, or that of the newest checkpoint of a run's folder.

    Raises CheckpointError where there is none.
    """
    if path.is_file():
        return path
    for folder in (path, *reversed(checkpoints_in(path / CHECKPOINTS))):
        if (folder / RUN_FILE).is_file():
            return folder / RUN_FILE
    raise CheckpointError(
        f"{path} holds no {RUN_FILE} and no checkpoint with one: name a run's folder, a checkpoint, or the YAML file"
    )


def streams_of_run(path: Path) -> Callable[[int], TrainStream]:
    """Gives for a step, counted from 1, the sequence of steps of the run behind `path`, without the shards that the
    step went without.

    A step behind the checkpoint is shown as the run would do it now. Raises ConfigError, CheckpointError, ShardError
    where the shards are not those of the checkpoint, and, when called, DamagedShardError where one is damaged that the
    step has read, or may have.
    """
    file = run_file_of(path)
    run, manifest_file = from_yaml(Run, file), file.parent / MANIFEST
    if not manifest_file.is_file():
        stream = stream_of(run, open_sets(run))
        return lambda _step: stream
    return _DoneSteps(run, read_json(manifest_file, CheckpointError)).stream_at


class _DoneSteps:
    """The steps of a checkpoint, read again."""

    def __init__(self, run: Run, manifest: Mapping[str, Any]) -> None:
        self._run = run
        self._state: Mapping[str, Any] = manifest["data"]
        self._left_out = Skipped.from_manifest(manifest)
        self._stream = lru_cache(KEPT_STREAMS)(self._make_stream)

    def stream_at(self, step: int) -> TrainStream:
        """The sequence as `step` read it."""
        if self._run.data.packing == "best_fit":  # a run goes without the same shards in all its steps
            # A checkpoint from before shards could be left out has no such list.
            return self._stream(tuple(map(tuple, self._state.get("skipped", ()))))
        if step > self._left_out.last_step:
            return self._stream(None)
        start = self._left_out.start_of(step)
        return self._stream(() if start is None else start.shards)

    def _make_stream(self, skipped: Shards | None) -> TrainStream:
        """Without these shards; None: without those that are damaged now, where the run allows it."""
        stream = stream_of(self._run, open_sets(self._run) if skipped is None else self._sets_without(skipped))
        stream.check(self._state)
        return stream

    def _sets_without(self, skipped: Shards) -> list[DataSet]:
        sets = []
        for data_set, folder in enumerate(self._run.data.train):
            data = DataSet.open(folder, cache=self._run.data.cache, skip_damaged=True)
            without = data.numbers_of(skipped[data_set]) if skipped else []
            for number, wrong in data.skipped.items():
                if number not in without:
                    raise DamagedShardError(f"{wrong} (the step has read it, or may have)")
            sets.append(data.without(dict.fromkeys(without, "the run went without it")))
        return sets
