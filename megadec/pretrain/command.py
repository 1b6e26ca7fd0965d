"""The command pretrain: a run file and a DeepSpeed file in, trained weights in the run's folder out.

It stands after export, because a run may begin from a model of any format that export reads.
"""

from collections.abc import Sequence
from pathlib import Path

from megadec.engine.command import train_command
from megadec.engine.runs.common import Job
from megadec.engine.runs.open_pretrain import open_run
from megadec.engine.runs.pretrain import PretrainRun


def pretrain(argv: Sequence[str]) -> None:
    """Train as one rank of a launcher; metrics and checkpoints go to the run's folder."""
    train_command(argv, PretrainRun, open_pretraining, description="Pretrain a decoder.", program="launch/pretrain.py")


def open_pretraining(run: PretrainRun, deepspeed_file: Path) -> Job:
    """`open_run`, with the weights of `model.init_from` and the new stage where the run names them.

    Raises as it, `open_model`, `prove_before_training` and `with_new_stage` do.
    """
    # What is imported here brings torch, which a wrong request need not wait for.
    if run.stage is not None:
        from megadec.engine.checkpoint.new_stage import with_new_stage

        run = with_new_stage(run)
    if run.model.init_from is None:
        return open_run(run, deepspeed_file)
    from megadec.export.huggingface.foreign import prove_before_training
    from megadec.export.read.open_model import open_model

    initial = open_model(Path(run.model.init_from))
    job = open_run(run, deepspeed_file, initial)
    prove_before_training(initial, run)
    return job
