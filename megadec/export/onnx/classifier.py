"""The ONNX export of a classifier: written, loaded in onnxruntime, compared, and only then named.

In comes the ModelSource of a classifier, out goes a folder with model.onnx, its weights, shape.json, tokenizer.model
and megadec.json. No cache of keys and values, since a text is read once; so the graph is another one than the
decoder's, made of the same layers.
"""

from __future__ import annotations

from pathlib import Path

from megadec.common.errors import ConfigError, ExportError
from megadec.common.files import whole_folder, write_json
from megadec.common.log import logger
from megadec.common.tokenizer import Tokenizer
from megadec.export.onnx.decoder import classifier_graph
from megadec.export.onnx.export import check_companions, write_companions
from megadec.export.onnx.files import compare_weights, write_onnx
from megadec.export.onnx.runtime import OnnxClassifier
from megadec.export.parity.classifier import compare_classifier
from megadec.export.parity.compare import Parity, prompt_ids
from megadec.export.read.load import decoder_with
from megadec.export.read.provenance import PROVENANCE_FILE, provenance
from megadec.export.read.source import ModelSource, check_vocabulary

log = logger(__name__)


def to_onnx_classifier(source: ModelSource, output: Path, *, threads: int = 0) -> Parity:
    """Export to the folder `output`, which appears when onnxruntime's logits equal ours, alone and in padded batches.

    threads: of onnxruntime while comparing; 0 takes every core. Raises ExportError for a mismatch, ConfigError when
    `output` exists or the source has no labels, MissingExtraError without onnx and onnxruntime, StorageError.
    """
    if source.classes is None:
        raise ConfigError(f"{source.path} is a language model and has no labels; its export is that of `to_onnx`")
    tokenizer = Tokenizer.load(source.tokenizer_path)
    check_vocabulary(source, tokenizer)
    with whole_folder(output) as folder:
        log.info("writing ONNX of a classifier, float32, to %s", output)
        write_onnx(folder, classifier_graph(source.shape, source.classes), source)
        write_companions(folder, source)
        parity = check_onnx_classifier(folder, source, threads=threads)
        write_json(folder / PROVENANCE_FILE, provenance(source, tokenizer, parity))
    log.info("%s: %s", output, parity)
    return parity


def check_onnx_classifier(folder: Path, source: ModelSource, *, threads: int = 0) -> Parity:
    """Load `folder` in onnxruntime and compare it with its source. Raises ExportError naming what differs."""
    check_companions(folder, source)
    decoder = decoder_with(source.shape, compare_weights(folder, source), source.classes)
    model = OnnxClassifier(folder, threads)
    if model.task != source.task:
        raise ExportError(f"{folder}: the graph says its task is {model.task}; that of {source.path} is {source.task}")
    prompts = prompt_ids(Tokenizer.load(folder), source.shape.max_position_embeddings)
    difference = compare_classifier(prompts, decoder, model.logits)
    return Parity(difference, len(prompts), greedy_tokens=0, texts=0, runtime="onnxruntime")
