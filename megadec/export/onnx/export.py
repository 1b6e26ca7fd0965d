"""The ONNX export: written, loaded in onnxruntime, compared, and only then named.

The folder has model.onnx, its weights, shape.json, tokenizer.model and megadec.json. Float32 only, which every runtime
computes as we do; a smaller file is for the runtime's own tools to make. A classifier's graph has no cache of keys and
values, since a text is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.common.files import read_json, sha256_of, write_json
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.common.tokenizer import Tokenizer
from megadec.export.onnx.decoder import build_graph
from megadec.export.onnx.files import compare_weights, write_onnx
from megadec.export.onnx.runtime import OnnxClassifier, OnnxModel
from megadec.export.parity.compare import (
    Parity,
    compare_classifier,
    compare_greedy,
    compare_logits,
    greedy_by,
    prompt_ids,
)
from megadec.export.parity.folder import write_proven
from megadec.export.read.load import decoder_with
from megadec.export.read.megadec import SHAPE_FILE
from megadec.export.read.source import ModelSource

# The last tokens of a prompt, fed as these many at a time behind the cache of the others.
STEPS = (2, 1, 1)


def to_onnx(source: ModelSource, output: Path) -> Parity:
    """Export to the folder `output`, which appears when onnxruntime's logits and greedy text equal ours.

    Of a classifier the logits of texts alone and in padded batches are compared. Raises ExportError for a mismatch,
    ConfigError when `output` exists, MissingExtraError without onnx and onnxruntime, StorageError.
    """
    return write_proven(
        source,
        output,
        "ONNX, float32,",
        lambda folder, _: write_model(folder, source),
        lambda folder: check_onnx(folder, source),
    )


def write_model(folder: Path, source: ModelSource) -> None:
    """model.onnx, its weights and shape.json."""
    write_onnx(folder, build_graph(source.shape, source.classes), source)
    write_json(folder / SHAPE_FILE, source.shape.to_dict())


def check_onnx(folder: Path, source: ModelSource) -> Parity:
    """Load `folder` in onnxruntime and compare it with its source. Raises ExportError naming what differs."""
    if read_json(folder / SHAPE_FILE, ExportError) != source.shape.to_dict():
        raise ExportError(f"{folder / SHAPE_FILE} is not the shape of {source.path}")
    found, wanted = sha256_of(folder / TOKENIZER_FILE), sha256_of(source.tokenizer_path)
    if found != wanted:
        raise ExportError(f"{folder / TOKENIZER_FILE} has sha256 {found}; the model was trained with {wanted}")
    # Our decoder computes on the written weights, which are mapped and were found equal to the source's.
    decoder = decoder_with(source.shape, compare_weights(folder, source), source.classes)
    tokenizer, context = Tokenizer.load(folder), source.shape.max_position_embeddings
    prompts, greedy = prompt_ids(tokenizer, context), 0
    if source.classes is not None:
        classifier = OnnxClassifier(folder)
        if classifier.task != source.task:
            raise ExportError(
                f"{folder}: the graph says its task is {classifier.task}; that of {source.path} is {source.task}"
            )
        difference = compare_classifier(prompts, decoder, classifier.logits)
    else:
        model = OnnxModel(folder)
        at_once = compare_logits(prompts, decoder, lambda ids_BS: model.logits(ids_BS[0].tolist())[None])
        in_steps = compare_logits(prompts, decoder, lambda ids_BS: logits_in_steps(model, ids_BS[0].tolist())[None])
        difference = max(at_once, in_steps)
        generate = greedy_by(model.session, tokenizer.eos_id)
        greedy = compare_greedy(prompts, decoder, generate, tokenizer.eos_id, context)
    return Parity(difference, len(prompts), greedy, texts=0, runtime="onnxruntime")


def logits_in_steps(model: OnnxModel, ids: Sequence[int]) -> Tensor:
    """Logits [S, V] of a prompt that is fed in parts: most of it first, then STEPS behind the cache."""
    session = model.session()
    found: list[Tensor] = []
    start = 0
    for tokens in (len(ids) - sum(STEPS), *STEPS):
        if tokens > 0 and start < len(ids):
            found += session.feed_pieces(ids[start : start + tokens])
            start += tokens
    return torch.cat(found)
