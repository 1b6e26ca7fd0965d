"""One save on several ranks: what a rank meets at the worst moment."""

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megadec.common.errors import StorageError
from megadec.engine.checkpoint.writer import PendingSave
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import CheckpointOptions
from megadec.engine.zero.state_files import ShardSlice, Sums, header_of, rank_file

PATIENCE_SECONDS = 30.0


def publish(partial: Path, final: Path, files: dict[str, Any], sums: Sums) -> None:
    (partial / "manifest.json").write_text(json.dumps({"files": files, "sums": sums}))
    os.rename(partial, final)


def start(folder: Path, rank: int, retries: int = 0) -> PendingSave:
    shard = ShardSlice("weight", "weight", rank * 4, 4, torch.float32)

    def tensors() -> Generator[tuple[ShardSlice, Tensor], None, None]:
        yield shard, torch.arange(4.0)

    options, ranks = CheckpointOptions(retries=retries, retry_pause_seconds=0.0), Ranks(rank, 2, torch.device("cpu"))
    header, partial = header_of([shard], {"weight": (8,)}, None), folder / ".step.partial"
    pending = PendingSave(ranks, header, tensors, {}, partial, folder / "step", publish, options)
    pending.start(in_background=True)
    return pending


def test_a_rank_that_is_held_up_after_its_note_finds_nothing_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def replace_and_lose_the_cpu(source: Any, target: Any) -> None:
        replace(source, target)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "00001" in str(target) and not (tmp_path / "step").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    monkeypatch.setattr(os, "replace", replace_and_lose_the_cpu)
    saves = [start(tmp_path, rank) for rank in range(2)]
    for pending in saves:
        pending.wait(PATIENCE_SECONDS)
    assert [(pending.done, pending.error) for pending in saves] == [(True, None)] * 2
    held = {str(path.relative_to(tmp_path / "step")) for path in (tmp_path / "step").rglob("*") if path.is_file()}
    assert held == {"manifest.json", rank_file(0), rank_file(1)}


def test_an_error_of_the_disk_that_has_no_rule_is_tried_again_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def stale(*_: Any) -> None:
        tries.append(1)
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("megadec.engine.checkpoint.writer.write_state", stale)
    pending = start(tmp_path, 1, retries=2)
    pending.wait(PATIENCE_SECONDS)
    assert len(tries) == 3
    assert isinstance(pending.error, StorageError)
    assert "Stale file handle" in str(pending.error)
    assert not pending.done
