"""Scoring a model on held-out shards: bits per character and perplexity by data set.

In: a run, a checkpoint, or a Hugging Face, megadec, GGUF or ONNX folder, and folders of shards, here or behind an
address. Out: a dictionary of figures. The numbers are those that the engine computes during training, by the same code.
Windows are cut without overlap, so the first tokens of a window have little context and every figure is a little worse
than possible.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from megadec.common.errors import ConfigError, TrainingError
from megadec.common.tokenizer import Tokenizer
from megadec.data.batch import Batch
from megadec.data.dataset import DataSet
from megadec.data.resumable import RankPosition
from megadec.data.shard_cache import ShardCacheOptions
from megadec.data.shard_folders import folder_name
from megadec.decoder.model import Decoder
from megadec.engine.evaluate import evaluate_loss, window_batches
from megadec.engine.evaluate_options import EvaluateOptions
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Evaluation
from megadec.engine.ranks import Ranks
from megadec.engine.task import Scorer
from megadec.export.gguf.llama_cpp import LlamaCppModel
from megadec.export.onnx.runtime import OnnxModel
from megadec.export.read.load import load_source
from megadec.export.read.open_model import open_model
from megadec.export.read.source import origin_of
from megadec.export.runtimes import open_runtime, runtime_of


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """model: a run, a checkpoint, or a Hugging Face, megadec, GGUF or ONNX folder.

    Of a run it is the best checkpoint, or the newest whole one.

    data: folders of held-out shards, paths or addresses as `data.train` takes them, named by their last part in the
    result. cache: where remote shards are kept and how they are fetched, `data.cache` of a run.
    output: a JSON file for the result beside standard output.
    sequence_length: length of a window; the model's context, at most 1024, when left out.
    windows: at most this many windows of each set, spread over it; all when left out.
    micro_batch_size: windows that are computed together.
    dtype: of the weights. device: such as cpu or cuda; without, cuda where there is one. GGUF and ONNX folders run on
        the CPU as they were written, a document at a time.
    """

    model: Path
    data: tuple[str, ...]
    output: Path | None = None
    sequence_length: int | None = None
    windows: int | None = None
    micro_batch_size: int = 8
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str | None = None
    cache: ShardCacheOptions = dataclasses.field(default_factory=ShardCacheOptions)

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data names no folder; give at least one folder of held-out shards")
        names = [folder_name(folder) for folder in self.data]
        if len(set(names)) != len(names):
            raise ConfigError(f"data: the last parts of the folders name the results and must differ; found {names}")


DEFAULT_SEQUENCE_LENGTH = 1024
ALL_WINDOWS = 2**62


class _Alone:
    """A decoder in one process, as a `Scorer`."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.ranks = Ranks(rank=0, world_size=1, device=decoder.embed_tokens.weight.device)

    def evaluating(self) -> AbstractContextManager[None]:
        return torch.inference_mode()

    def loss_sum(self, batch: Batch) -> Tensor:
        loss: Tensor = self._decoder(batch.ids_BS, **batch.model_arguments())
        return loss

    def logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self._decoder(batch.ids_BS, **batch.context_arguments())
        return logits


class _InRuntime:
    """A model in another runtime, as a `Scorer`; it reads a document at a time, from its first token in the window."""

    def __init__(self, model: LlamaCppModel | OnnxModel) -> None:
        self._model = model
        self.ranks = Ranks(rank=0, world_size=1, device=torch.device("cpu"))

    def evaluating(self) -> AbstractContextManager[None]:
        return torch.inference_mode()

    def loss_sum(self, batch: Batch) -> Tensor:
        nats = torch.zeros(())
        for row, start, stop in self._documents(batch):
            logits_SV = self._model.logits(batch.ids_BS[row, start:stop].tolist())
            losses_S = cross_entropy(logits_SV, batch.targets_BS[row, start:stop], reduction="none")
            nats += (losses_S * batch.weights_BS[row, start:stop]).sum()
        return nats

    def logits(self, batch: Batch) -> Tensor:
        logits_BSV = torch.zeros(*batch.ids_BS.shape, self._model.vocabulary_size)
        for row, start, stop in self._documents(batch):
            logits_BSV[row, start:stop] = self._model.logits(batch.ids_BS[row, start:stop].tolist())
        return logits_BSV

    def _documents(self, batch: Batch) -> Iterator[tuple[int, int, int]]:
        """Row, first token and end of each document that has something to predict."""
        for row, documents_S in enumerate(batch.model_arguments()["documents_BS"]):
            ends = documents_S.unique_consecutive(return_counts=True)[1].cumsum(0).tolist()
            for start, stop in pairwise([0, *ends]):
                if batch.weights_BS[row, start:stop].any():
                    yield row, start, stop


@dataclasses.dataclass(frozen=True)
class _Opened:
    scorer: Scorer
    tokenizer: Tokenizer
    context: int
    step: int | None
    tokens: int | None
    dtype: str


def _open(options: ScoreOptions) -> _Opened:
    dtype = getattr(torch, options.dtype)
    if runtime_of(options.model) is not None:
        found = open_runtime(options.model, dtype, options.device)
        origin, runtime = origin_of(found.stated), found.stated.get("parity", {}).get("runtime", found.kind)
        context = found.model.max_position_embeddings
        return _Opened(
            _InRuntime(found.model), found.tokenizer, context, origin["step"], origin["tokens"], str(runtime)
        )
    source = open_model(options.model)
    decoder, tokenizer = load_source(source, dtype, options.device)
    context = source.shape.max_position_embeddings
    return _Opened(_Alone(decoder), tokenizer, context, source.step, source.tokens, options.dtype)


def score(options: ScoreOptions) -> dict[str, Any]:
    """Evaluate the model on every set.

    Raises ConfigError, CheckpointError, ExportError or ShardError (another tokenizer, no index, a shard that is damaged
    or cannot be fetched), StorageError of the cache, and TrainingError when it is stopped by a signal.
    """
    opened = _open(options)
    sequence_length = options.sequence_length or min(opened.context, DEFAULT_SEQUENCE_LENGTH)
    if not 1 <= sequence_length <= opened.context:
        raise ConfigError(f"sequence_length={sequence_length} is not from 1 to {opened.context}, the model's context")
    tokenizer = opened.tokenizer
    sets = [DataSet.open(folder, tokenizer.sha256, cache=options.cache) for folder in options.data]
    windows = ALL_WINDOWS if options.windows is None else options.windows
    how = EvaluateOptions(windows=windows, micro_batch_size=options.micro_batch_size)
    alone = RankPosition(group=0, groups=1, part=0, parts=1)
    batches = {data.name: window_batches(data, how, sequence_length, tokenizer.bos_id, alone) for data in sets}
    with Interrupt() as interrupt:
        found = evaluate_loss(opened.scorer, batches, tokenizer, opened.step or 0, interrupt)
        if found is None:
            raise TrainingError(f"the evaluation was stopped: {interrupt.reason}")
    return {
        "model": str(options.model),
        "step": opened.step,
        "trained_tokens": opened.tokens,
        "dtype": opened.dtype,
        "sequence_length": sequence_length,
        "sets": {evaluation.name: _figures(evaluation) for evaluation in found},
    }


def _figures(evaluation: Evaluation) -> dict[str, float]:
    values = evaluation.values
    if values["evaluated_tokens"] == 0:
        raise ConfigError(f"data {evaluation.name}: the set holds no token to predict")
    return {
        **{name: values[name] for name in ("bits_per_character", "perplexity", "loss")},
        "tokens": values["evaluated_tokens"],
        "characters": values["evaluated_characters"],
        "seconds": round(evaluation.seconds, 3),
    }
