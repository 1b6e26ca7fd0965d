"""State that DeepSpeed keeps on a disk is trained, saved and resumed as any other: by real swapping.

Slow for DeepSpeed's async_io alone, which g++ builds when it is first used; skipped where libaio is missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deepspeed.ops.op_builder import AsyncIOBuilder

from tests.support.processes import DEADLINE_SECONDS, TRAIN_MANY, environment, losses_of, train_all

# DeepSpeed swaps a group of weights of a megabyte and more.
SWAPPED = {
    "hidden_size": 192,
    "layers": 4,
    "heads": 4,
    "kv_heads": 2,
    "head_size": 48,
    "intermediate_size": 512,
    "max_position_embeddings": 64,
}
# A disk that refuses a save twice, in the middle of a group that was swapped in. A full one would refuse swapping
# too.
REFUSING = """
import errno, runpy, sys
import megadec.engine.checkpoint.writer as writer
write, refused = writer.write_state, []
def refuse(path, header, tensors, check):
    if len(refused) < 2:
        refused.append(next(iter(tensors))[0])
        raise OSError(errno.ENOSPC, "No space left on device")
    return write(path, header, tensors, check)
writer.write_state = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AsyncIOBuilder().is_compatible(verbose=False), reason="DeepSpeed's async_io needs libaio"),
]


@pytest.fixture
def nvme_file(tmp_path: Path, zero_file: Callable[..., Path]) -> Path:
    file = zero_file("zero3_nvme")
    values = json.loads(file.read_text())
    disk = tmp_path / "disk"
    disk.mkdir()
    for name in ("offload_optimizer", "offload_param"):
        values["zero_optimization"][name]["nvme_path"] = str(disk)
    file.write_text(json.dumps(values))
    return file


def test_a_run_on_disk_is_saved_and_goes_on_as_one_in_memory(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path], nvme_file: Path
) -> None:
    saving = {"interval_steps": 3, "keep_last": 9}
    memory, disk = (str(make_run(name, model={"shape": SWAPPED}, checkpoint=saving)) for name in ("memory", "disk"))
    behind = ["--checkpoint.snapshot_bytes=1000000000"]
    plan = [
        {"run": memory, "deepspeed": str(zero_file("zero3_offload"))},
        {"run": disk, "deepspeed": str(nvme_file), "options": ["--train.stop_at_step=4"]},
        {"run": disk, "deepspeed": str(nvme_file), "options": ["--train.stop_at_step=8", *behind]},
        # What was saved from the disk goes on in memory too.
        {"run": disk, "deepspeed": str(zero_file("zero3"))},
    ]
    train_all(tmp_path, plan)
    there, here = (losses_of(tmp_path / "runs" / name) for name in ("disk", "memory"))
    assert there == pytest.approx(here, rel=1e-5)


def test_a_save_from_disk_that_is_refused_is_tried_again(
    tmp_path: Path, make_run: Callable[..., Path], nvme_file: Path
) -> None:
    again = {"interval_steps": 2, "retries": 3, "retry_pause_seconds": 0.1}
    run = make_run(
        "refused", model={"shape": SWAPPED}, checkpoint=again, train={"stop_at_step": 4}, evaluate={"sets": {}}
    )
    plan = [{"run": str(run), "deepspeed": str(nvme_file)}]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run(
        [sys.executable, "-c", REFUSING, str(TRAIN_MANY), str(tmp_path / "plan.json")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("The state stays in memory; saving it again") == 2, done.stderr
    assert (tmp_path / "runs" / "refused" / "checkpoints" / "step_00000004").is_dir()
