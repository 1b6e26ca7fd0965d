"""The ONNX export of a decoder: written, loaded in onnxruntime, compared, and only then named.

In comes a ModelSource, out goes a folder with model.onnx, its weights, shape.json, tokenizer.model and megadec.json.
Float32 only, which every runtime computes as we do; a smaller file is for the runtime's own tools to make.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from megadec.common.errors import ConfigError, ExportError
from megadec.common.files import read_json, sha256_of, whole_folder, write_json
from megadec.common.log import logger
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.common.tokenizer import Tokenizer
from megadec.export.onnx.decoder import decoder_graph
from megadec.export.onnx.files import compare_weights, write_onnx
from megadec.export.onnx.runtime import OnnxModel
from megadec.export.parity.compare import Parity, compare_greedy, compare_logits, greedy_by, prompt_ids
from megadec.export.read.load import decoder_with
from megadec.export.read.megadec import SHAPE_FILE
from megadec.export.read.provenance import PROVENANCE_FILE, provenance
from megadec.export.read.source import ModelSource, check_vocabulary

# The last tokens of a prompt, fed as these many at a time behind the cache of the others.
STEPS = (2, 1, 1)

log = logger(__name__)


def to_onnx(source: ModelSource, output: Path, *, threads: int = 0) -> Parity:
    """Export to the folder `output`, which appears when onnxruntime's logits and greedy text equal ours.

    threads: of onnxruntime while comparing; 0 takes every core. Raises ExportError for a mismatch, ConfigError when
    `output` exists or the source is a classifier, MissingExtraError without onnx and onnxruntime, StorageError.
    """
    if source.classes is not None:
        raise ConfigError(f"{source.path} is a classifier; its export is that of `to_onnx_classifier`")
    tokenizer = Tokenizer.load(source.tokenizer_path)
    check_vocabulary(source, tokenizer)
    with whole_folder(output) as folder:
        log.info("writing ONNX, float32, to %s", output)
        write_onnx(folder, decoder_graph(source.shape), source)
        write_companions(folder, source)
        parity = check_onnx(folder, source, threads=threads)
        write_json(folder / PROVENANCE_FILE, provenance(source, tokenizer, parity))
    log.info("%s: %s", output, parity)
    return parity


def check_onnx(folder: Path, source: ModelSource, *, threads: int = 0) -> Parity:
    """Load `folder` in onnxruntime and compare it with its source. Raises ExportError naming what differs."""
    check_companions(folder, source)
    # Our decoder computes on the written weights, which are mapped and were found equal to the source's.
    decoder = decoder_with(source.shape, compare_weights(folder, source))
    model = OnnxModel(folder, threads)
    tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
    context = source.shape.max_position_embeddings
    prompts = prompt_ids(tokenizer, context)
    at_once = compare_logits(prompts, decoder, lambda ids_BS: model.logits(ids_BS[0].tolist())[None])
    in_steps = compare_logits(prompts, decoder, lambda ids_BS: logits_in_steps(model, ids_BS[0].tolist())[None])
    greedy = greedy_by(model.session, tokenizer.eos_id)
    tokens = compare_greedy(prompts, decoder, greedy, tokenizer.eos_id, context)
    return Parity(max(at_once, in_steps), len(prompts), tokens, texts=0, runtime="onnxruntime")


def write_companions(folder: Path, source: ModelSource) -> None:
    """shape.json and tokenizer.model."""
    write_json(folder / SHAPE_FILE, source.shape.to_dict())
    shutil.copyfile(source.tokenizer_path, folder / TOKENIZER_FILE)


def check_companions(folder: Path, source: ModelSource) -> None:
    """Raise ExportError when shape.json or tokenizer.model is not the source's."""
    if read_json(folder / SHAPE_FILE, ExportError) != source.shape.to_dict():
        raise ExportError(f"{folder / SHAPE_FILE} is not the shape of {source.path}")
    found, wanted = sha256_of(folder / TOKENIZER_FILE), sha256_of(source.tokenizer_path)
    if found != wanted:
        raise ExportError(f"{folder / TOKENIZER_FILE} has sha256 {found}; the model was trained with {wanted}")


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
