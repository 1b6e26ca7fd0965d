"""What a save costs training: seconds that it stands still, and how much slower its steps are while a save is written.

    python -m bench.checkpoint [--rounds 5] [--folder FOLDER] [--deepspeed FILE]

In: a shape and a batch, as for the other benchmarks, and a folder on the disk to measure. Out: one JSON object: for
each way to save (`deepspeed`: its save_checkpoint and a hash of every file after it; `synchronous` and `asynchronous`:
ours) the median seconds that training waited, the seconds until the checkpoint had its name, and the bytes; and the
seconds of a step without a save and during one. Several ranks: start it with torchrun. Nothing else uses the disk, and
the state is in the page cache when it is flushed, so a slower disk shows in the seconds until it is whole.
"""

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import environment
from bench.trainers import engine_of, initial_values, task_of
from bench.zero_cases import ZeroWorkload
from megadec.common.config import parse
from megadec.common.errors import run_main
from megadec.common.files import sha256_of, sync_tree, write_json
from megadec.decoder.flops import parameter_count
from megadec.engine.checkpoint.checkpointer import AsyncCheckpointer
from megadec.engine.metrics.reports import Saved
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import CheckpointOptions
from megadec.engine.step import train_step
from megadec.engine.zero.engine import ZeroEngine, start_process_group
from megadec.engine.zero.state_files import Sums

WAYS = ("deepspeed", "synchronous", "asynchronous")


@dataclass(frozen=True)
class CheckpointBenchOptions(ZeroWorkload):
    """rounds: saves of each kind, after one that is not counted. folder: on which disk; a new one in the system's place
    for such things where none is given.
    """

    rounds: int = 5
    folder: Path | None = None


class Bench:
    """An engine that steps, and a saver of each kind."""

    def __init__(self, options: CheckpointBenchOptions, folder: Path, ranks: Ranks) -> None:
        task = task_of(options, initial_values(options.shape))
        self.engine: ZeroEngine = engine_of(task, options, ranks, micro_steps=options.micro_steps)
        self.folder = folder
        self.batches = options.batches(ranks)
        self.savers = {way: self._saver(way == "asynchronous") for way in WAYS[1:]}
        self.number = 0

    def step(self) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        train_step(self.engine, self.batches, step=1, learning_rate=1e-4)
        return time.perf_counter() - began

    def save(self, way: str) -> dict[str, Any]:
        """One save: what it cost. The folder is empty after it."""
        self.number += 1
        final = self.folder / f"step_{self.number:08d}"
        found = self._save_deepspeed(final) if way == "deepspeed" else self._save_ours(way, final)
        self.engine.ranks.barrier()
        if self.engine.ranks.rank == 0:
            shutil.rmtree(final)
        self.engine.ranks.barrier()
        return found

    def _saver(self, asynchronous: bool) -> AsyncCheckpointer:
        options = CheckpointOptions(asynchronous=asynchronous, retries=0)
        return AsyncCheckpointer(self.engine.zero_state(), self.engine.ranks, options)

    def _save_ours(self, way: str, final: Path) -> dict[str, Any]:
        steps: list[float] = []
        saver, began = self.savers[way], time.perf_counter()
        with self.engine.evaluating():  # as a save of a run measures the loss that a resumed one must find
            float(self.engine.loss_sum(self.batches[0].sequences(0, 1)))
        saved = saver.start(Saved(final, self.number), {}, publish, began)
        while saved is None:
            steps.append(self.step())
            saved = saver.poll()
        return {
            "stall_seconds": saved.stall_seconds,
            "whole_seconds": saved.seconds,
            "bytes": saved.bytes,
            "step_seconds": steps,
        }

    def _save_deepspeed(self, final: Path) -> dict[str, Any]:
        began = time.perf_counter()
        self.engine._engine.save_checkpoint(str(final), tag="zero", save_latest=False)
        self.engine.ranks.barrier()
        ranks, files = self.engine.ranks, sorted(path for path in final.rglob("*") if path.is_file())
        # Shared among the ranks, as in ours each hashes what it has written.
        hashes = ranks.all_gather({path.name: sha256_of(path) for path in files[ranks.rank :: ranks.world_size]})
        if ranks.rank == 0:
            write_json(final / "manifest.json", {name: one for part in hashes for name, one in part.items()})
            sync_tree(final)
        ranks.barrier()
        seconds = time.perf_counter() - began
        size = sum(path.stat().st_size for path in files) // self.engine.ranks.world_size
        return {"stall_seconds": seconds, "whole_seconds": seconds, "bytes": size, "step_seconds": []}


def publish(partial: Path, final: Path, files: dict[str, Any], sums: Sums) -> None:
    """The manifest and the name."""
    write_json(partial / "manifest.json", {"files": files, "sums": sums})
    sync_tree(partial)
    os.replace(partial, final)


def measure(options: CheckpointBenchOptions, bench: Bench) -> dict[str, Any]:
    """Every way in turn, so many rounds; then the medians."""
    for way in WAYS:
        bench.step()
        bench.save(way)
    alone: list[float] = []
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            alone += [bench.step() for _ in range(3)]
            found[way].append(bench.save(way))
    rows = {}
    for way, saves in found.items():
        during = [seconds for save in saves for seconds in save["step_seconds"]]
        rows[way] = {
            **{key: statistics.median(save[key] for save in saves) for key in ("stall_seconds", "whole_seconds")},
            "largest_stall_seconds": max(save["stall_seconds"] for save in saves),
            "rank_bytes": saves[0]["bytes"],
            "step_seconds_during": statistics.median(during) if during else None,
        }
    return {"step_seconds": statistics.median(alone), "saves": rows}


def main(argv: Sequence[str]) -> None:
    """JSON on standard output of rank 0."""
    options = parse(CheckpointBenchOptions, argv, description="What a save costs training.")
    ranks = start_process_group()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bench = Bench(options, Path(ranks.broadcast(folder)), ranks)
        result = measure(options, bench)
        ranks.barrier()
    if ranks.rank == 0:
        facts = {
            "parameters": parameter_count(options.shape),
            "ranks": ranks.world_size,
            "deepspeed": str(options.deepspeed),
        }
        print(json.dumps({"environment": environment(), **facts, "rows": options.rows, **result}, indent=1))


if __name__ == "__main__":
    run_main(main)
