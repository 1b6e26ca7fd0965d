"""The ONNX export: written, loaded in onnxruntime, compared, and only then named.

The folder has model.onnx, its weights, shape.json, tokenizer.model and megadec.json. Float32 only, which every runtime
computes as we do; a smaller file is for the runtime's own tools to make. A classifier's graph has no cache of keys and
values, since a text is read once.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.common.files import read_json, write_json
from megadec.common.tokenizer import Tokenizer
from megadec.export.onnx.decoder import build_graph
from megadec.export.onnx.files import compare_weights, write_onnx
from megadec.export.onnx.runtime import OnnxClassifier, OnnxModel
from megadec.export.parity.compare import Logits, Parity, compare_classifier, compare_language_model, greedy_text
from megadec.export.parity.folder import write_proven
from megadec.export.read.load import decoder_with
from megadec.export.read.megadec import SHAPE_FILE
from megadec.export.read.source import ModelSource, check_tokenizer

# Where a prompt is cut: its last tokens are fed behind the cache of the others, two at a time and one by one.
CUTS = (-4, -2, -1)


def to_onnx(source: ModelSource, output: Path) -> Parity:
    """Export to the folder `output`, which appears when onnxruntime's logits and greedy text equal ours.

    Of a classifier the logits of texts alone and in padded batches are compared. Raises ExportError for a mismatch,
    ConfigError when `output` exists, MissingExtraError without onnx and onnxruntime, StorageError.
    """
    check = partial(check_onnx, source=source)
    return write_proven(source, output, "ONNX, float32,", lambda folder, _: write_model(folder, source), check)


def write_model(folder: Path, source: ModelSource) -> None:
    """model.onnx, its weights and shape.json."""
    write_onnx(folder, build_graph(source.shape, source.classes), source)
    write_json(folder / SHAPE_FILE, source.shape.to_dict())


def check_onnx(folder: Path, source: ModelSource) -> Parity:
    """Load `folder` in onnxruntime and compare it with its source. Raises ExportError naming what differs."""
    if read_json(folder / SHAPE_FILE, ExportError) != source.shape.to_dict():
        raise ExportError(f"{folder / SHAPE_FILE} is not the shape of {source.path}")
    tokenizer = Tokenizer.load(source.tokenizer_path)
    check_tokenizer(folder, tokenizer.sha256)
    # Our decoder computes on the written weights, which are mapped and were found equal to the source's.
    decoder = decoder_with(source.shape, compare_weights(folder, source), source.classes)
    if source.classes is None:
        model = OnnxModel(folder)
        generate = partial(greedy_text, model.session, tokenizer.end_ids)
        logits: list[Logits] = [model.logits, partial(logits_in_steps, model)]
        return compare_language_model(decoder, tokenizer, logits, generate, runtime="onnxruntime")
    classifier = OnnxClassifier(folder)
    if classifier.task != source.task:
        raise ExportError(
            f"{folder}: the graph says its task is {classifier.task}; that of {source.path} is {source.task}"
        )
    return compare_classifier(decoder, tokenizer, classifier.logits, runtime="onnxruntime")


def logits_in_steps(model: OnnxModel, ids: Sequence[int]) -> Tensor:
    """Logits [S, V] of a prompt that is fed in the parts between CUTS."""
    session = model.session()
    parts = [part.tolist() for part in np.split(np.asarray(ids), CUTS) if len(part)]
    return torch.cat([logits_SV for part in parts for logits_SV in session.feed_pieces(part)])
