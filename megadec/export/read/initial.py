"""A pretraining run opened with the model that it begins from.

In comes a run, out comes a Job for any launcher. It stands here and not in the engine, because reading models comes
after training in the order of imports.
"""

from __future__ import annotations

from pathlib import Path

from megadec.engine.runs.common import Job
from megadec.engine.runs.pretrain import Run, open_run
from megadec.export.read.model import open_model


def open_pretraining(run: Run, deepspeed_file: Path) -> Job:
    """`open_run`, with the weights of `model.init_from` where the run names one. Raises as `open_run`, `open_model`."""
    initial = None if run.model.init_from is None else open_model(Path(run.model.init_from))
    return open_run(run, deepspeed_file, initial)
