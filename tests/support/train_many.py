"""A rank of several short trainings, one after the other in one process: imports cost more than they do.

The plan: a JSON file with a list of {"run": YAML, "deepspeed": FILE, "options": [...], "refused": ERROR, "kind":
"finetune" or "seq2seq"}, done in order; without a kind it is pretraining. With "refused" the training must end with
that error; its message goes to a file beside the plan. With "writes": FOLDER nothing is trained: what the newest
checkpoint holds is loaded, and written by DeepSpeed itself. What a launcher adds comes before the file and is not
looked at. What can be made to go wrong is in tests/support/disturb.py.
"""

from __future__ import annotations

import json
from pathlib import Path

from megadec.common.config import parse
from megadec.common.errors import MegadecError
from megadec.engine.checkpoint.load import load_checkpoint
from megadec.engine.checkpoint.resume import find_checkpoint
from megadec.engine.health.preemption import Interrupt
from megadec.engine.loop import train
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.runs.pretrain import Run
from megadec.engine.runs.seq2seq import PairsRun, open_pairs_run
from megadec.engine.zero.engine import build_engine
from megadec.export.read.model import open_pretraining
from megadec.finetune.task import FineTuneRun, open_finetune
from tests.support.disturb import disturbed
from tests.support.processes import do_plans

KINDS = {
    "pretrain": (Run, open_pretraining),
    "finetune": (FineTuneRun, open_finetune),
    "seq2seq": (PairsRun, open_pairs_run),
}


def main(plan: Path, ranks: Ranks) -> None:
    for training in json.loads(plan.read_text()):
        kind, open_job = KINDS[training.get("kind", "pretrain")]
        options = [*training.get("options", []), *(["--train.dry_run=false"] if training.get("bare") else [])]
        run = parse(kind, ["--config", training["run"], *options], description="a test")
        try:
            steps = plan.parent / f"{run.name}.rank{ranks.rank}.updates.json"
            with Interrupt() as interrupt, disturbed(training, steps):
                job = open_job(run, Path(training["deepspeed"]))
                if "writes" in training:
                    write_deepspeed(job, ranks, training["writes"])
                else:
                    train(job, interrupt, ranks)
        except MegadecError as error:
            if type(error).__name__ != training.get("refused"):
                raise
            (plan.parent / f"{run.name}.rank{ranks.rank}.{type(error).__name__}").write_text(str(error))
        else:
            assert "refused" not in training, training


def write_deepspeed(job: Job, ranks: Ranks, folder: str) -> None:
    found = find_checkpoint(job, ranks)
    assert found is not None, job.run.checkpoints
    engine = build_engine(job.task, job.run.optimizer, job.settings, ranks)
    load_checkpoint(engine, job, *found)
    engine._engine.save_checkpoint(folder, tag="zero", save_latest=False)


if __name__ == "__main__":
    do_plans(main)
