"""A pretraining run: what a YAML file and a command line say; open_pretrain.py checks it against what is there."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from megadec.common.errors import ConfigError, check_range
from megadec.common.tokenizer import Tokenizer
from megadec.data.card import check_epochs, without_card
from megadec.data.shard_cache import ShardCacheOptions
from megadec.data.shard_folders import Verify
from megadec.decoder.execution import Execution
from megadec.decoder.loss_options import LanguageLoss
from megadec.decoder.shape import DecoderShape
from megadec.engine.evaluate_options import EvaluateOptions
from megadec.engine.runs.common import CommonRun, ShapeFields, with_vocabulary
from megadec.engine.runs.stages import StageOptions, check_order

if TYPE_CHECKING:  # imports torch
    from megadec.engine.task import InitialWeights


@dataclass(frozen=True)
class ModelOptions:
    """preset: one of megadec/decoder/presets. shape: fields of `DecoderShape`, in place of the preset's; rope_scaling
    is keys of its own, as in a config.json.

    init_from: a model whose weights the run begins from (a run, a checkpoint, a megadec or a Hugging Face folder, which
    is first compared with transformers where other tools wrote it) instead of random ones; without a preset, the shape
    is that model's too. dropout: of embeddings and of what each
    half of a block adds, in training; helps where a text is seen many times. execution: how it is computed.
    """

    preset: str | None = None
    init_from: str | None = None
    shape: ShapeFields = field(default_factory=dict)
    dropout: float = 0.0
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        check_range(self, "model.", "dropout", least=0, below=1)

    def decoder_shape(self, tokenizer: Tokenizer | None, initial: "InitialWeights | None" = None) -> DecoderShape:
        """The decoder's shape. Without a tokenizer the vocabulary is the preset's, or the default.

        Raises ConfigError for an unknown preset, an unknown or missing field, a vocabulary that is too small.
        """
        fields = dict(self.shape)
        if initial is not None and self.preset is None:
            fields = {**initial.shape.to_dict(), **fields}
        if tokenizer is not None:
            fields = with_vocabulary(fields, tokenizer)
        if self.preset is None:
            return DecoderShape.from_mapping(fields)
        return DecoderShape.from_preset(self.preset, **fields)


@dataclass(frozen=True)
class DataOptions:
    """The shards that a run trains on.

    train: folder of shards -> weight: how often its windows are seen while those of a set of weight 1 are seen once. A
        folder is a path or an fsspec address (s3://, hf://, https://), whose shards are fetched into `cache`.
    max_epochs: folder of `train` -> how often it may be seen in the whole run; the start warns where it is more.
    card: a data card that gives `train` and `max_epochs`; own-data.md has an example. A checkpoint keeps what it gave.
    sequence_length: tokens of a sequence.
    packing: `cut` cuts documents where a sequence ends; `best_fit` keeps them whole where they fit.
    workers: threads that make batches; 0: the training's own thread makes each when it needs it.
    prefetch_steps: steps made ahead of those that the workers hold.
    verify: `sizes` compares the shards' sizes with the index at each start; `hashes` reads them all, and alone finds a
        local shard whose bytes were changed.
    bad_shards: how many shards may be missing, cut or changed (a whole number), or which share of all (between 0 and
        1). The run continues without them and names them in damaged_shards.json. A remote shard that arrives damaged
        ends the run; the next start goes without it.
    skip_documents: ids of documents that nothing is learned from. The windows keep their order and their other
        documents, so a run may continue with another list.
    skip_documents_file: more of them, one a line.
    """

    train: dict[str, float] = field(default_factory=dict)
    max_epochs: dict[str, float] = field(default_factory=dict)
    card: str | None = None
    sequence_length: int = 1024
    packing: Literal["cut", "best_fit"] = "cut"
    workers: int = 1
    prefetch_steps: int = 2
    verify: Verify = "sizes"
    bad_shards: int | float = 0
    skip_documents: tuple[str, ...] = ()
    skip_documents_file: str | None = None
    cache: ShardCacheOptions = field(default_factory=ShardCacheOptions)

    def __post_init__(self) -> None:
        given = {"card": self.card, "train": self.train, "max_epochs": self.max_epochs}
        for key, value in without_card(given, "data.").items():
            object.__setattr__(self, key, value)
        check_epochs(self.max_epochs, "data.")
        check_range(self, "data.", "bad_shards", "workers", least=0)
        check_range(self, "data.", "prefetch_steps", "sequence_length", least=1)
        if isinstance(self.bad_shards, float) and not 0 < self.bad_shards < 1:
            raise ConfigError(
                f"data.bad_shards={self.bad_shards} is neither a whole number of shards nor a share between 0 and 1"
            )


@dataclass(frozen=True)
class PretrainRun(CommonRun):
    """Everything that `launch/pretrain.py` needs to know beside DeepSpeed's own file.

    stages: what changes on the way, each with a `name`, its `first_step` and the keys that are others from there on, in
        the order of their steps; docs/en/training.md has an example.
    stage: go on from the checkpoint of checkpoint.resume as a new stage of this name, with the keys as they are given
        now; the stages before it are those of the checkpoint.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    loss: LanguageLoss = field(default_factory=LanguageLoss)
    stages: tuple[StageOptions, ...] = ()
    stage: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.stages)
