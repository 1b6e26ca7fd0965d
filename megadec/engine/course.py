"""Changes of course while a run trains: model and optimizer computed as a stage wants it, with every tensor as it is.

The batches of a stage come from the stream, and its learning rate from the stage itself; what is left stands here.
"""

from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.engine.runs.common import Job
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.zero.engine import ZeroEngine


def enter_stage(engine: ZeroEngine, job: Job, step: int) -> None:
    """From now on compute as in the stage of step `step`, counted from 1."""
    if not job.changes:
        return
    run, shape, module = job.stage_of(step).run, job.shape_of(step), engine.module
    assert isinstance(run, PretrainRun), "no other kind of run has stages"
    assert isinstance(shape, DecoderShape)
    assert isinstance(module, Decoder)
    module.change_course(shape, run.model.dropout)
    engine.change_course(run.optimizer)
