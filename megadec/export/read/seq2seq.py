"""A trained encoder-decoder in memory: a run or one of its checkpoints in, the model and its tokenizer out.

No exported format holds an encoder-decoder yet, so only what the engine itself writes can be opened.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from megadec.common.config import from_dict
from megadec.common.errors import CheckpointError, ConfigError
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.common.tokenizer import Tokenizer
from megadec.data.pairs import PairOptions
from megadec.decoder.textbook.registry import architecture
from megadec.decoder.textbook.seq2seq import EncoderDecoder
from megadec.engine.runs.common import CHECKPOINTS
from megadec.engine.zero.state_files import StateFiles
from megadec.export.read.load import assign
from megadec.export.read.open_model import MANIFEST_FILE, checkpoint_of
from megadec.export.read.source import check_tokenizer

KIND = "seq2seq"


@dataclass(frozen=True)
class TrainedPairs:
    """model: in eval mode, on the CPU. data: the pairs that it was trained on. step: how long."""

    model: EncoderDecoder
    tokenizer: Tokenizer
    data: PairOptions
    architecture: str
    path: Path
    step: int


def load_seq2seq(path: Path) -> TrainedPairs:
    """The encoder-decoder at `path`: a run (its best checkpoint, or the newest whole one) or a checkpoint.

    Raises ConfigError when there is another kind of model or none, CheckpointError when it is not whole.
    """
    path = Path(path)
    if not (path / CHECKPOINTS).is_dir() and not (path / MANIFEST_FILE).is_file():
        raise ConfigError(f"{path} is neither a run ({CHECKPOINTS}/) nor a checkpoint ({MANIFEST_FILE})")
    folder, manifest = checkpoint_of(path)
    task = manifest.get("task", {})
    if task.get("kind") != KIND:
        raise ConfigError(
            f"{folder} holds a {task.get('kind', 'language_model')} model; an encoder-decoder was expected"
        )
    try:
        found = architecture(task["architecture"])
        shape = found.shape_from(manifest["shape"])
    except ConfigError as error:
        raise CheckpointError(f"{folder / MANIFEST_FILE}: {error}") from error
    check_tokenizer(folder, manifest["tokenizer"]["sha256"], CheckpointError)
    files, sizes = StateFiles(folder), found.sizes(shape)
    if files.shapes != sizes:
        raise CheckpointError(f"{folder}: its tensors are not those of a {found.name} of this shape")
    with torch.device("meta"):
        model = found.module(shape)
    assign(model, {name: files.read(name) for name in sizes}, tied=shape.tied_embeddings)
    return TrainedPairs(
        model=cast(EncoderDecoder, model.eval()),
        tokenizer=Tokenizer.load(folder / TOKENIZER_FILE),
        data=from_dict(PairOptions, task["data"], origin=str(folder / MANIFEST_FILE)),
        architecture=found.name,
        path=folder,
        step=manifest["step"],
    )
