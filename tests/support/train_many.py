"""A rank of several short trainings, one after the other in one process: imports cost more than they do.

TinyRuns.train starts such ranks; as a script it is one rank under a launcher.

The plan: a JSON file with a list of {"run": YAML, "deepspeed": FILE, "options": [...], "refused": ERROR, "kind":
"finetune" or "seq2seq"}, done in order; without a kind it is pretraining. With "refused" the training must end with
that error; its message goes to a file beside the plan. With "gathers": FILE nothing is trained: what the newest
checkpoint holds is loaded, and what DeepSpeed then has of it is written. What a launcher adds comes before the file and
is not looked at. What can be made to go wrong is in tests/support/disturb.py.
"""

import json
import sys
from pathlib import Path

from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from safetensors.torch import save_file

from megadec.common.config import parse
from megadec.common.errors import MegadecError
from megadec.engine.checkpoint.load import load_checkpoint
from megadec.engine.checkpoint.resume import find_checkpoint
from megadec.engine.health.preemption import Interrupt
from megadec.engine.loop import train
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.runs.seq2seq import PairsRun, open_pairs_run
from megadec.engine.zero.engine import build_engine, end_process_group, start_process_group
from megadec.engine.zero.state_files import MOMENTS, WEIGHT
from megadec.finetune.task import FineTuneRun, open_finetune
from megadec.pretrain.command import open_pretraining
from tests.support.disturb import disturbed

KINDS = {
    "pretrain": (PretrainRun, open_pretraining),
    "finetune": (FineTuneRun, open_finetune),
    "seq2seq": (PairsRun, open_pairs_run),
}


def do_plan(plan: Path) -> None:
    """A rank's whole life."""
    ranks = start_process_group()
    for training in json.loads(plan.read_text()):
        kind, open_job = KINDS[training.get("kind", "pretrain")]
        options = [*training.get("options", []), *(["--train.dry_run=false"] if training.get("bare") else [])]
        run = parse(kind, ["--config", training["run"], *options], description="a test")
        try:
            steps = plan.parent / f"{run.name}.rank{ranks.rank}.updates.json"
            with Interrupt() as interrupt, disturbed(training, steps):
                job = open_job(run, Path(training["deepspeed"]))
                if "gathers" in training:
                    gather(job, ranks, Path(training["gathers"]))
                else:
                    train(job, interrupt, ranks)
        except MegadecError as error:
            if type(error).__name__ != training.get("refused"):
                raise
            (plan.parent / f"{run.name}.rank{ranks.rank}.{type(error).__name__}").write_text(str(error))
        else:
            assert "refused" not in training, training
    end_process_group(ranks)


def gather(job: Job, ranks: Ranks, file: Path) -> None:
    """Whole weights and moments as DeepSpeed's own functions put them together from all ranks, as a safetensors file.

    At stage 0 DeepSpeed has no account of its own: there the model and torch's AdamW are asked.
    """
    found = find_checkpoint(job, ranks)
    assert found is not None, job.run.checkpoints
    engine = build_engine(job.task, job.run.optimizer, job.settings, ranks)
    load_checkpoint(engine, job, *found)
    optimizer, tensors = engine._engine.optimizer, {}
    if job.settings.stage in (1, 2):
        optimizer._lazy_init_hp_params_optimizer_state()  # as after the first step
    for name, p in engine.module.named_parameters():
        tensors[f"{WEIGHT} {name}"] = p if job.settings.stage == 0 else safe_get_full_fp32_param(p)
        for part in MOMENTS:
            whole = optimizer.state[p][part] if job.settings.stage == 0 else safe_get_full_optimizer_state(p, part)
            tensors[f"{part} {name}"] = whole
    if ranks.rank == 0:
        save_file(tensors, file)


if __name__ == "__main__":
    do_plan(Path(sys.argv[-1]))
