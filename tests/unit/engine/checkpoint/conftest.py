"""A run of one process whose engine is a stand-in: what saving and loading look at, and nothing that trains."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from megadec.common.tokenizer import Tokenizer
from megadec.engine.checkpoint.checkpointer import AsyncCheckpointer
from megadec.engine.checkpoint.manifest import Progress
from megadec.engine.checkpoint.save import begin_checkpoint
from megadec.engine.early_stopping import Best
from megadec.engine.metrics.reports import Saved
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import CheckpointOptions, Job
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.zero.engine import ZeroEngine
from megadec.engine.zero.settings import DeepSpeedSettings
from megadec.engine.zero.state import ZeroState
from tests.support.zero_engines import fake_engine

SIZES = {"bias": (5,), "frozen": (11,), "matrix": (7, 5)}


@pytest.fixture
def make_job(tmp_path: Path, tiny_tokenizer_path: Path) -> Callable[..., Job]:
    """An opened run in `tmp_path`. ids: of the first sequence of every step."""

    def make(ids: tuple[int, ...] = (4, 5, 6), stage: int = 1, precision: Any = "fp32", **checkpoint: Any) -> Job:
        options = CheckpointOptions(**{"retry_pause_seconds": 0.0, **checkpoint})
        run = PretrainRun(
            name="run", tokenizer=str(tiny_tokenizer_path), output_folder=str(tmp_path), checkpoint=options
        )
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        batch: Any = SimpleNamespace(valid_tokens=2, ids_BS=torch.tensor([ids]))
        batch.to = lambda device: batch
        stream = SimpleNamespace(batch=lambda *_: [batch], state=lambda step: {"step": step}, check=lambda _: None)
        stream.at = lambda step: stream
        task = SimpleNamespace(
            kind="language_model",
            manifest={"kind": "language_model"},
            shape=SimpleNamespace(to_dict=lambda: {"layers": 2}),
            stream=stream,
            tied=(),
        )
        settings = DeepSpeedSettings(Path("zero.json"), {}, stage, precision)
        return Job(run, settings, Tokenizer.load(tiny_tokenizer_path), cast(Any, task))

    return make


@pytest.fixture
def make_engine() -> Callable[..., ZeroEngine]:
    """A stand-in whose weights all have one value, which its update sets, and whose loss is `loss`."""

    def make(stage: int = 1, loss: float = 3.0) -> ZeroEngine:
        inner, ranks = fake_engine(stage, 0, 1, SIZES, "frozen"), Ranks(0, 1, torch.device("cpu"))
        engine: Any = SimpleNamespace(ranks=ranks, module=inner.module, evaluating=nullcontext, set_step=lambda _: None)
        engine.zero_state = lambda: ZeroState(inner, stage, 0, 1)
        engine.loss_sum = lambda batch: torch.tensor(loss * batch.valid_tokens)

        def update(value: float) -> None:
            with torch.no_grad():
                for _, tensor in engine.zero_state().tensors():
                    tensor.fill_(value)

        engine.update = update
        return cast(ZeroEngine, engine)

    return make


@pytest.fixture
def save_step() -> Callable[..., Saved]:
    """Saves a step of a run, and waits until it is whole. best: the best step so far."""

    def save(engine: ZeroEngine, job: Job, step: int, best: int = -1) -> Saved:
        with AsyncCheckpointer(engine.zero_state(), engine.ranks, job.run.checkpoint) as saver:
            progress = Progress(step, 8 * step, 2.5, best=Best(best))
            saved = begin_checkpoint(saver, engine, job, progress, best=best == step) or saver.wait()
        assert saved is not None
        return saved

    return save
