"""The Hugging Face export of a classifier: written, loaded again, compared, and only then named.

In comes the ModelSource of a classifier, out goes a folder that AutoModelForSequenceClassification and AutoTokenizer
open with no code of ours. Trade-off: `</s>`, which no text holds, is the padding, so that no row is added to the
embedding; transformers reads the logits behind the last id that is not padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from megadec.common.errors import ConfigError, ExportError
from megadec.common.files import whole_folder, write_json
from megadec.common.log import logger
from megadec.common.tokenizer import Tokenizer
from megadec.export.huggingface.decoder import (
    MAX_SHARD_BYTES,
    compare_tokenizer,
    decoder_of_equal_weights,
    load_transformers,
    quiet,
    write_tokenizer,
)
from megadec.export.parity.classifier import Classify, compare_classifier
from megadec.export.parity.compare import Parity, prompt_ids
from megadec.export.read.huggingface_files import read_folder, write_model
from megadec.export.read.layout import choose_layout
from megadec.export.read.provenance import PROVENANCE_FILE, provenance
from megadec.export.read.source import ModelSource

PADDING = {"pad_token": "</s>", "padding_side": "right"}

log = logger(__name__)


def to_hf_classifier(
    source: ModelSource,
    output: Path,
    *,
    dtype: torch.dtype | None = None,
    layout: str = "auto",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Parity:
    """Export to the folder `output`, which appears when transformers' weights, ids, labels and logits equal ours.

    dtype: torch.float32 or torch.bfloat16; None is what the weights were computed in. layout: auto, llama or qwen3.
    Raises ExportError for a mismatch or a shape that the layout cannot express, ConfigError when `output` exists or the
    source has no labels, MissingExtraError without transformers, StorageError.
    """
    if source.classes is None:
        raise ConfigError(f"{source.path} is a language model and has no labels; its export is that of `to_hf`")
    chosen = choose_layout(source.shape, layout)
    dtype = dtype or source.dtype
    tokenizer = Tokenizer.load(source.tokenizer_path)
    transformers = load_transformers()
    with whole_folder(output) as folder:
        log.info("writing a classifier, %s layout, %s, to %s", chosen, dtype, output)
        write_model(source, folder, chosen, dtype, tokenizer, max_shard_bytes)
        write_tokenizer(transformers, tokenizer, folder, source.shape.max_position_embeddings, PADDING)
        parity = check_classifier(folder, source, dtype)
        write_json(folder / PROVENANCE_FILE, provenance(source, tokenizer, parity))
    log.info("%s: %s", output, parity)
    return parity


def check_classifier(folder: Path, source: ModelSource, dtype: torch.dtype) -> Parity:
    """Load `folder` with transformers and compare it with its source. Raises ExportError naming what differs."""
    transformers = load_transformers()
    tokenizer = Tokenizer.load(source.tokenizer_path)
    read_folder(folder)
    with quiet(transformers):
        texts = compare_tokenizer(transformers, tokenizer, folder)
        pads = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        model.eval()
        _compare_labels(model.config, source)
        decoder = decoder_of_equal_weights(model, source, choose_layout(source.shape, "auto"), dtype)
        prompts = prompt_ids(tokenizer, source.shape.max_position_embeddings)
        difference = compare_classifier(prompts, decoder, _classify_by(model, pads))
    return Parity(difference, len(prompts), greedy_tokens=0, texts=texts)


def _classify_by(model: Any, tokenizer: Any) -> Classify:
    """Logits as a user of transformers gets them: the tokenizer pads, the model finds each text's last token."""

    def classify(rows: Any) -> torch.Tensor:
        batch = tokenizer.pad({"input_ids": [list(ids) for ids in rows]}, return_tensors="pt")
        logits_BL: torch.Tensor = model(**batch).logits
        return logits_BL

    return classify


def _compare_labels(config: Any, source: ModelSource) -> None:
    wanted = dict(enumerate(source.task["labels"]))
    if config.id2label != wanted or config.label2id != {label: number for number, label in wanted.items()}:
        raise ExportError(f"transformers has labels {config.id2label}; those of {source.path} are {wanted}")
