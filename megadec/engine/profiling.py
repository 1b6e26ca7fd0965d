"""A trace of chosen steps: what rank 0 computes, launches and waits for, for chrome://tracing or ui.perfetto.dev."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

from megadec.common.errors import StorageError
from megadec.common.files import whole_folder
from megadec.common.log import logger
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import CommonRun

FOLDER = "profiles"
FILE = "rank_0000.json.gz"

log = logger(__name__)


@contextmanager
def profiled(run: CommonRun, step: int, ranks: Ranks) -> Iterator[None]:
    """Around a step: writes `profiles/step_N/rank_0000.json.gz` where `train.profile_steps` names it, else nothing.

    A traced step takes longer and computes the same. What cannot be written is a warning.
    """
    if ranks.rank != 0 or step not in run.train.profile_steps:
        yield
        return
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as profiler:
        yield
    path = run.folder / FOLDER / f"step_{step:08d}"
    try:
        with whole_folder(path, replace=True) as folder:
            profiler.export_chrome_trace(str(folder / FILE))
    except StorageError as error:  # a side file ends no run
        log.warning("the trace of step %d is lost: %s", step, error)
    else:
        log.info("traced step %d: %s", step, path / FILE)
