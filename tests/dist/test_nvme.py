"""State that DeepSpeed keeps on a disk is trained, saved and resumed as any other: by real swapping.

Slow for DeepSpeed's async_io alone, which g++ builds when it is first used; skipped where libaio is missing.
"""

import errno
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from deepspeed.ops.op_builder import AsyncIOBuilder

from megadec.engine.checkpoint import writer
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns
from tests.support.train_many import do_plan

# DeepSpeed swaps a group of weights of a megabyte and more.
SWAPPED = {"hidden_size": 192, "layers": 4, "heads": 4, "kv_heads": 2, "head_size": 48, "intermediate_size": 512}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AsyncIOBuilder().is_compatible(verbose=False), reason="DeepSpeed's async_io needs libaio"),
]


def train_refused_twice(plan: Path) -> None:
    """The disk refuses a save twice, in the middle of a group that was swapped in; a full one would refuse swapping."""
    write, refused = writer.write_state, []

    def refuse(path: Path, header: Any, tensors: Any, check: Any) -> Any:
        if len(refused) < 2:
            refused.append(next(iter(tensors))[0])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, header, tensors, check)

    with mock.patch.object(writer, "write_state", refuse):
        do_plan(plan)


@pytest.fixture
def nvme_file(tmp_path: Path, runs: TinyRuns) -> str:
    """The DeepSpeed file that keeps state on a disk of this test."""
    file = runs.zero("zero3_nvme")
    values = json.loads(file.read_text())
    disk = tmp_path / "disk"
    disk.mkdir()
    for name in ("offload_optimizer", "offload_param"):
        values["zero_optimization"][name]["nvme_path"] = str(disk)
    file = tmp_path / "nvme.json"
    file.write_text(json.dumps(values))
    return str(file)


def test_a_run_on_disk_is_saved_and_goes_on_as_one_in_memory(runs: TinyRuns, nvme_file: str) -> None:
    sections = {"model": {"shape": SWAPPED}, "checkpoint": {"interval_steps": 3, "keep_last": 9}}
    behind = ["--train.stop_at_step=8", "--checkpoint.snapshot_bytes=1000000000"]
    runs.train(
        runs.training("memory", "zero3_offload", **sections),
        {**runs.training("disk", "zero3", "--train.stop_at_step=4", **sections), "deepspeed": nvme_file},
        {**runs.training("disk", "zero3", *behind, **sections), "deepspeed": nvme_file},
        # What was saved from the disk goes on in memory too.
        runs.training("disk", "zero3", **sections),
    )
    assert runs.losses("disk") == pytest.approx(runs.losses("memory"), rel=1e-5)


def test_a_save_from_disk_that_is_refused_is_tried_again(runs: TinyRuns, nvme_file: str) -> None:
    again = {"interval_steps": 2, "retries": 3, "retry_pause_seconds": 0.1}
    sections = {"model": {"shape": SWAPPED}, "train": {"stop_at_step": 4}, "evaluate": NO_EVALUATION}
    training = {**runs.training("refused", checkpoint=again, **sections), "deepspeed": nvme_file}
    said = runs.train(training, ranks=1, do=train_refused_twice)
    assert said.count("The state stays in memory; saving it again") == 2, said
    assert runs.checkpoint("refused", 4).is_dir()
