"""The ONNX export: written, loaded in onnxruntime, compared, and only then named.

The folder has model.onnx, its weights, shape.json, tokenizer.model and megadec.json. Float32, which every runtime
computes as we do, or int8, about a quarter of it, with an operator that onnxruntime alone has. A classifier's graph has
no cache of keys and values, since a text is read once.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from megadec.common.errors import ConfigError, ExportError
from megadec.common.files import read_json, write_json
from megadec.common.tokenizer import Tokenizer
from megadec.export.onnx.decoder import build_graph
from megadec.export.onnx.files import compare_weights, write_onnx
from megadec.export.onnx.int8 import BLOCK_VALUES
from megadec.export.onnx.runtime import OnnxClassifier, OnnxModel, OnnxSession
from megadec.export.parity.compare import (
    LOGIT_TOLERANCE,
    Ids,
    Mode,
    Parity,
    bits_per_character,
    check_loss,
    compare_classifier,
    compare_language_model,
    continue_greedily,
)
from megadec.export.parity.folder import write_proven
from megadec.export.read.load import decoder_with, load_source
from megadec.export.read.megadec import SHAPE_FILE
from megadec.export.read.source import ModelSource, check_tokenizer

Dtype = Literal["float32", "int8"]
# As q8_0 in `gguf/writer.py`: what a matrix is multiplied with is rounded too, which we do not.
INT8_TOLERANCE = 3e-1
INT8_LARGEST_LOSS = 0.01


def to_onnx(source: ModelSource, output: Path, *, dtype: Dtype = "float32", parity: Mode = "full") -> Parity:
    """Export to the folder `output`, which appears when onnxruntime's logits and greedy text equal ours.

    Of a classifier the logits of texts alone and in padded batches are compared. Raises ExportError for a mismatch,
    ConfigError when `output` exists, MissingExtraError without onnx and onnxruntime, StorageError.
    """
    if dtype == "int8":
        _check_int8(source)
    check = partial(check_onnx, source=source, dtype=dtype, parity=parity)
    return write_proven(source, output, f"ONNX, {dtype},", lambda folder, _: write_model(folder, source, dtype), check)


def _check_int8(source: ModelSource) -> None:
    """Raise ConfigError for what int8 is not there for."""
    if source.classes is not None:
        raise ConfigError(f"dtype=int8: {source.path} is a classifier, whose loss by it is not measured; take float32")
    for name, size in source.sizes.items():
        if len(size) > 1 and size[-1] % BLOCK_VALUES:
            raise ConfigError(
                f"dtype=int8: a row of tensor {name!r} has {size[-1]} values; int8 packs blocks of {BLOCK_VALUES}"
            )


def write_model(folder: Path, source: ModelSource, dtype: Dtype = "float32") -> None:
    """model.onnx, its weights and shape.json."""
    write_onnx(folder, build_graph(source.shape, source.classes, dtype == "int8"), source)
    write_json(folder / SHAPE_FILE, source.shape.to_dict())


def check_onnx(folder: Path, source: ModelSource, dtype: Dtype = "float32", parity: Mode = "full") -> Parity:
    """Load `folder` in onnxruntime and compare it with its source. Raises ExportError naming what differs."""
    if read_json(folder / SHAPE_FILE, ExportError) != source.shape.to_dict():
        raise ExportError(f"{folder / SHAPE_FILE} is not the shape of {source.path}")
    tokenizer = Tokenizer.load(source.tokenizer_path)
    check_tokenizer(folder, tokenizer.sha256)
    int8 = dtype == "int8"
    # Before the others: each of the two decoders is in memory alone.
    before = bits_per_character(load_source(source)[0], tokenizer, parity) if int8 else None
    # Our decoder computes on the written weights, which were found equal to the source's, or to those as int8.
    decoder = decoder_with(source.shape, compare_weights(folder, source, int8), source.classes)
    if source.classes is None:
        model = OnnxModel(folder)

        def continued(prompts: Sequence[Ids], tokens: int) -> list[tuple[list[int], Tensor]]:
            session = OnnxSession(model, len(prompts))
            return continue_greedily(session.feed_rows, tokenizer.end_ids, prompts, tokens)

        runtime = "onnxruntime int8" if int8 else "onnxruntime"
        tolerance = INT8_TOLERANCE if int8 else LOGIT_TOLERANCE
        found = compare_language_model(decoder, tokenizer, continued, parity, runtime=runtime, tolerance=tolerance)
        return found if before is None else check_loss(found, before, INT8_LARGEST_LOSS)
    classifier = OnnxClassifier(folder)
    if classifier.task != source.task:
        raise ExportError(
            f"{folder}: the graph says its task is {classifier.task}; that of {source.path} is {source.task}"
        )
    return compare_classifier(decoder, tokenizer, classifier.logits, parity, runtime="onnxruntime")
