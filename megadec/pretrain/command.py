"""The command pretrain: a run file and a DeepSpeed file in, trained weights in the run's folder out.

It stands after export, because a run may begin from a model of any format that export reads.
"""

from collections.abc import Sequence
from pathlib import Path

from megadec.engine.command import train_command
from megadec.engine.runs.common import Job
from megadec.engine.runs.pretrain import PretrainRun, open_run
from megadec.export.huggingface.foreign import prove_before_training
from megadec.export.read.open_model import open_model


def pretrain(argv: Sequence[str]) -> None:
    """Train as one rank of a launcher; metrics and checkpoints go to the run's folder."""
    train_command(argv, PretrainRun, open_pretraining, description="Pretrain a decoder.", program="launch/pretrain.py")


def open_pretraining(run: PretrainRun, deepspeed_file: Path) -> Job:
    """`open_run`, with the weights of `model.init_from` where the run names one.

    Raises as it, `open_model` and `prove_before_training` do.
    """
    initial = None if run.model.init_from is None else open_model(Path(run.model.init_from))
    job = open_run(run, deepspeed_file, initial)
    if initial is not None:
        prove_before_training(initial, run)
    return job
