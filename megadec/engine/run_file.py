"""A pretraining run read back from where it left itself.

In: a run's folder, one of its checkpoints, or a YAML file. Out: the run as it was resolved, and its sequence of steps.
Trade-off: shards are found under the paths that the run was started with, so relative ones hold from the same folder.
"""

from __future__ import annotations

from pathlib import Path

from megadec.common.config import from_yaml
from megadec.common.errors import CheckpointError
from megadec.data.stream import TrainStream
from megadec.engine.checkpoint import FOLDER, RUN_FILE, checkpoints_in
from megadec.engine.run import Run, open_sets, stream_of


def run_file_of(path: Path) -> Path:
    """The YAML file of a run: `path` itself, a checkpoint's, or that of the newest checkpoint of a run's folder.

    Raises CheckpointError where there is none.
    """
    if path.is_file():
        return path
    for folder in (path, *reversed(checkpoints_in(path / FOLDER))):
        if (folder / RUN_FILE).is_file():
            return folder / RUN_FILE
    raise CheckpointError(
        f"{path} holds no {RUN_FILE} and no checkpoint with one: name a run's folder, a checkpoint, or the YAML file"
    )


def stream_of_run(path: Path) -> tuple[Run, TrainStream]:
    """The run behind `path` and its sequence of steps. Raises ConfigError, ShardError, CheckpointError."""
    run = from_yaml(Run, run_file_of(path))
    return run, stream_of(run, open_sets(run))
