"""Tiny runs of pretraining in one folder: their files, their trainings by forked ranks, and what they left."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megadec.engine.checkpoint.manifest import read_manifest
from tests.support import PROJECT
from tests.support.processes import TRAIN_MANY, launched, losses_of, metrics_of, run_ranks, write_run
from tests.support.train_many import do_plan

TINY_RUN: dict[str, Any] = {
    "model": {
        "shape": {
            "hidden_size": 32,
            "layers": 2,
            "heads": 2,
            "kv_heads": 1,
            "head_size": 16,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
        }
    },
    "data": {"sequence_length": 32},
    "train": {"steps": 12, "global_batch_size": 8, "micro_batch_size": 2, "precision": "fp32"},
    "optimizer": {"learning_rate": 0.003},
    "schedule": {"warmup_steps": 3},
    "evaluate": {"interval_steps": 4, "windows": 9, "micro_batch_size": 4},
    "checkpoint": {"interval_steps": 0, "keep_last": 3},
}
# More steps than a test can wait for: only a signal ends the run.
ENDLESS = {"steps": 5000}
NO_EVALUATION: dict[str, Any] = {"sets": {}}


@dataclass(frozen=True)
class TinyRuns:
    """Runs below `folder`, all of the same shards."""

    folder: Path
    tokenizer: Path
    shards: Path

    def file(self, name: str, **sections: Any) -> Path:
        """Write a run with some sections changed."""
        run = copy.deepcopy(TINY_RUN)
        run["tokenizer"] = str(self.tokenizer)
        run["data"]["train"] = {str(self.shards): 1.0}
        run["evaluate"]["sets"] = {"tiny": str(self.shards)}
        shape = {**run["model"]["shape"], **sections.get("model", {}).get("shape", {})}
        sections["model"] = {**sections.get("model", {}), "shape": shape}
        return write_run(self.folder, name, run, sections)

    def zero(self, name: str) -> Path:
        """The DeepSpeed file of a stage as the project ships it, with nothing kept whole for being small."""
        values = json.loads((PROJECT / "ds_configs" / f"{name}.json").read_text())
        if values["zero_optimization"]["stage"] == 3:
            values["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(values))
        return path

    def command(self, name: str, stage: str = "zero3", **sections: Any) -> list[str]:
        """The arguments of launch/pretrain.py."""
        return ["--deepspeed", str(self.zero(stage)), "--config", str(self.file(name, **sections))]

    def training(self, name: str, stage: str = "zero3", *options: str, **sections: Any) -> dict[str, Any]:
        """One training of a plan (tests/support/train_many.py says what it may hold)."""
        return {"run": str(self.file(name, **sections)), "deepspeed": str(self.zero(stage)), "options": options}

    def train(self, *plan: dict[str, Any], ranks: int = 2, do: Callable[[Path], None] = do_plan) -> str:
        """Do the trainings of a plan one after the other on all ranks: what they printed."""
        file = self.plan_file(plan)
        run_ranks(do, [file], ranks, log := file.with_suffix(".log"))
        return log.read_text()

    def launch(self, *plan: dict[str, Any]) -> str:
        """The same on two ranks of the deepspeed launcher, which hands a test's environment on."""
        file = self.plan_file(plan)
        return launched([str(file)], 2, file.with_suffix(".log"), TRAIN_MANY)

    def plan_file(self, plan: Sequence[dict[str, Any]]) -> Path:
        """Write a plan."""
        file = self.folder / f"plan-{len(list(self.folder.glob('plan-*.json')))}.json"
        file.write_text(json.dumps(plan))
        return file

    def of(self, name: str) -> Path:
        """The run's folder."""
        return self.folder / "runs" / name

    def losses(self, name: str) -> list[float]:
        """Of every step."""
        return losses_of(self.of(name))

    def metrics(self, name: str, kind: str = "train") -> list[dict[str, Any]]:
        """The lines of one kind of metrics.jsonl."""
        return metrics_of(self.of(name), kind)

    def checkpoint(self, name: str, step: int) -> Path:
        """The folder of the checkpoint of this step."""
        return self.of(name) / "checkpoints" / f"step_{step:08d}"

    def manifest(self, name: str, step: int) -> dict[str, Any]:
        """What is written about this checkpoint, whose files are compared with it."""
        return read_manifest(self.checkpoint(name, step))

    def checkpoints(self, name: str) -> list[int]:
        """The steps of the run's checkpoints that have their names."""
        return sorted(int(path.name.removeprefix("step_")) for path in self.of(name).glob("checkpoints/step_*"))

    def refusals(self, name: str, error: str) -> list[str]:
        """What each rank said when it was refused."""
        return [path.read_text() for path in sorted(self.folder.glob(f"{name}.rank*.{error}"))]
