"""A fine-tuning run: what its YAML and command line say, checked against the disk, as a task for the engine.

Every rank reads and packs all texts before a process group exists: a moment for hundreds of thousands of titles, and a
mistake is one message before anything costs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from megadec.common.config import to_dict
from megadec.common.errors import ConfigError, check_range
from megadec.common.log import logger
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.execution import Execution
from megadec.decoder.flops import model_flops, sizes_of
from megadec.decoder.initialize import initial_tensor
from megadec.decoder.loss_options import LanguageLoss
from megadec.decoder.model import Decoder
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Evaluation
from megadec.engine.runs.common import INITIAL_CONTENT, CommonRun, Job, open_settings
from megadec.engine.task import Scorer, Task
from megadec.export.huggingface.foreign import prove_before_training
from megadec.export.read.open_model import LORA_A, LORA_B, open_model
from megadec.export.read.source import SCORE, ModelSource
from megadec.finetune.evaluate import MeasureOptions, evaluate_classes
from megadec.finetune.examples import LabelledOptions, LabelledSet, label_weights, read_sets
from megadec.finetune.lora import LoraOptions, Method, adapted, first_lora_value, trained_share
from megadec.finetune.packing import ClassifyStream

log = logger(__name__)


@dataclass(frozen=True)
class StartOptions:
    """What fine-tuning begins from.

    path: the pretrained model, anything that tools/convert.py can read. dropout: as in pretraining, of embeddings and
    of what each half of a block adds. execution: how it is computed.
    """

    path: str = ""
    dropout: float = 0.0
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        check_range(self, "model.", "dropout", least=0, below=1)


@dataclass(frozen=True)
class LossOptions:
    """Weighted cross-entropy over the texts of a step.

    class_weights: `balanced` gives every label the same total weight.
    weights: the weight of single labels by name, in place of that.
    label_smoothing: the share of the target that is spread over all labels.
    prefix_weight: also ask for the label at every earlier token of a text, with this weight beside 1 at the last (the
        loss of a step is then the mean over tokens).
    """

    class_weights: Literal["none", "balanced"] = "none"
    weights: dict[str, float] = field(default_factory=dict)
    label_smoothing: float = 0.0
    prefix_weight: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "loss.", "label_smoothing", least=0, below=1)
        check_range(self, "loss.", "prefix_weight", least=0, below=math.inf)


@dataclass(frozen=True)
class FineTuneRun(CommonRun):
    """Everything that `launch/finetune.py` needs to know beside DeepSpeed's own file.

    method: `full` trains everything, `frozen` only the head, `lora` low-rank products beside the frozen ones, `scratch`
        everything, from random weights.
    epochs: passes over the texts, in place of train.steps.
    """

    tokenizer: str = ""
    """The model's own when left out; another one is an error."""
    method: Method = "full"
    epochs: float | None = None
    model: StartOptions = field(default_factory=StartOptions)
    data: LabelledOptions = field(default_factory=LabelledOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    lora: LoraOptions = field(default_factory=LoraOptions)
    evaluate: MeasureOptions = field(default_factory=MeasureOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "", "epochs", above=0, below=math.inf)


def open_finetune(run: FineTuneRun, deepspeed_file: Path) -> Job:
    """Check everything that can be wrong with the request before anything costs.

    Raises ConfigError (no model, another tokenizer, sequences longer than the context, settings that disagree),
    CheckpointError or ExportError (the model is not whole, or read wrong), TokenizerError, InputError (the texts: see
    `read_sets`).
    """
    settings = open_settings(run, deepspeed_file)
    if not run.model.path:
        raise ConfigError("model.path names no model to start from: give a run, a checkpoint or an exported folder")
    source = open_model(Path(run.model.path))
    tokenizer = Tokenizer.load(source.tokenizer_path)
    if run.tokenizer and (other := Tokenizer.load(run.tokenizer)).sha256 != tokenizer.sha256:
        raise ConfigError(
            f"{run.model.path} was trained with another tokenizer than tokenizer={other.path}; leave it out"
        )
    length, context = run.data.sequence_length, source.shape.max_position_embeddings
    if length > context:
        raise ConfigError(
            f"data.sequence_length={length} is more than the context of {run.model.path}, which is {context} tokens"
        )
    train, dev = read_sets(run.data, tokenizer, run.seed)
    weights = label_weights(train, run.loss.class_weights, run.loss.weights)
    batch_size = run.train.global_batch_size
    stream = ClassifyStream(train, weights, length, run.seed, batch_size, run.loss.prefix_weight)
    log.info(
        "%s: %s texts of %d labels, %.1f tokens each, in %s sequences of %d",
        train.path, f"{train.texts:,}", len(train.names), len(train.tokens) / train.texts,
        f"{stream.windows_per_epoch:,}", length,
    )  # fmt: skip
    if run.epochs is not None:
        steps = math.ceil(run.epochs * stream.windows_per_epoch / batch_size)
        run = replace(run, train=replace(run.train, steps=steps))
    if dev is None and run.early_stopping.metric is not None:
        raise ConfigError(f"early_stopping.metric={run.early_stopping.metric} without data.dev to measure it on")
    prove_before_training(source, run)
    return Job(run, settings, tokenizer, _task(run, source, stream, dev))


def _task(run: FineTuneRun, source: ModelSource, stream: ClassifyStream, dev: LabelledSet | None) -> Task:
    shape, method = source.shape, run.method
    names = stream.data.names
    step_tokens = run.train.global_batch_size * run.data.sequence_length
    details = {
        "labels": list(names),
        "template": run.data.template,
        "sequence_length": run.data.sequence_length,
        "cut": run.data.cut,
        "initial": None if method == "scratch" else source.provenance,
        INITIAL_CONTENT: source.content,
        "method": method,
        **({"lora": to_dict(run.lora)} if method == "lora" else {}),
    }

    def build() -> Decoder:
        loss = LanguageLoss(run.loss.label_smoothing)
        classifier = Decoder(shape, run.model.execution, len(names), loss, run.model.dropout)
        return adapted(classifier, method, run.lora)

    sizes = sizes_of(build)

    def evaluate(scorer: Scorer, step: int, interrupt: Interrupt) -> list[Evaluation] | None:
        assert dev is not None, "evaluate_interval_steps says that there is nothing to measure"
        length, micro = run.data.sequence_length, run.evaluate.micro_batch_size
        return evaluate_classes(scorer, dev, length, micro, step, interrupt)

    def flops(_texts: int, squared_tokens: int) -> int:
        # The loop counts predictions, which are texts here; what is computed are the sequences.
        whole = model_flops(shape, step_tokens, squared_tokens, classes=len(names))
        return round(whole * trained_share(method))

    return Task(
        kind="classification",
        shape=shape,
        build=build,
        sizes=sizes,
        first_value=first_values(run, source, names, sizes),
        flops=flops,
        stream=stream,
        evaluate=evaluate,
        evaluate_interval_steps=run.evaluate.interval_steps if dev is not None else 0,
        details=details,
    )


def first_values(
    run: FineTuneRun, source: ModelSource, names: tuple[str, ...], sizes: Mapping[str, tuple[int, ...]]
) -> Callable[[str], Tensor]:
    """Name -> first value: the source's tensor, or random from the run's seed for what is new or from scratch.

    The head is new unless the source is a classifier of the same labels in the same order.
    """
    has_head = list(source.task.get("labels", ())) == list(names)
    if source.classes is not None and not has_head:
        log.info("%s knows other labels; its head is not taken over", source.path)

    def first_value(name: str) -> Tensor:
        if name.endswith((LORA_A, LORA_B)):
            return first_lora_value(name, sizes[name], run.seed)
        if run.method == "scratch" or (name == SCORE and not has_head):
            return initial_tensor(source.shape, name, sizes[name], run.seed)
        return source.tensor(name).to(torch.float32)

    return first_value
