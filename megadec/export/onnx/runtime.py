"""An exported ONNX folder -> answers: the door to onnxruntime.

In comes a folder that `to_onnx` or `to_onnx_classifier` wrote, out come logits. A prompt is fed in pieces, because the
graph gives the logits of every new token and attends with all of them at once: memory is bounded by a piece, and a long
prompt costs a few calls more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ConfigError, ExportError, InputError, MissingExtraError
from megadec.common.files import read_json
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.shape import DecoderShape
from megadec.export.onnx.decoder import past_name, present_name
from megadec.export.onnx.files import MODEL_FILE, TASK_NOTE
from megadec.export.read.megadec import SHAPE_FILE
from megadec.export.read.source import CLASSIFICATION, LANGUAGE_MODEL

PIECE_TOKENS = 256
BATCH_TEXTS = 16

# Shapes: B batch, S new tokens, V vocabulary, L labels.


def open_session(folder: Path, threads: int) -> Any:
    """onnxruntime's session for `folder`, on the CPU; threads=0 takes every core. Raises ExportError."""
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # A thread without work sleeps: others need the core, our own part of a service not least.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only; what it would warn of is compared before an export has its name
    file = folder / MODEL_FILE
    if not file.is_file():
        raise ExportError(f"{folder} has no {MODEL_FILE}; a folder that --to onnx wrote has one")
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base and are not public
        raise ExportError(f"{file}: onnxruntime cannot load it: {error}") from error


def read_shape(folder: Path) -> DecoderShape:
    """The shape beside the model. Raises ExportError."""
    try:
        return DecoderShape.from_mapping(read_json(folder / SHAPE_FILE, ExportError))
    except ConfigError as error:
        raise ExportError(f"{folder / SHAPE_FILE}: {error}") from error


def task_of(folder: Path, runtime: Any, kind: str) -> dict[str, Any]:
    """The task that the graph carries. Raises ExportError when it is not of this kind."""
    task: dict[str, Any] = json.loads(runtime.get_modelmeta().custom_metadata_map.get(TASK_NOTE, "{}"))
    if task.get("kind") != kind:
        raise ExportError(f"{folder / MODEL_FILE} is for {task.get('kind')}; a {kind} was wanted")
    return task


class OnnxModel:
    """A decoder in onnxruntime, on the CPU."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        """Load `folder`; threads=0 takes every core. Raises ExportError, MissingExtraError."""
        self.shape = read_shape(folder)
        self.runtime = open_session(folder, threads)
        task_of(folder, self.runtime, LANGUAGE_MODEL)

    @property
    def vocabulary_size(self) -> int:
        """How many logits there are."""
        return self.shape.vocabulary_size

    @property
    def max_position_embeddings(self) -> int:
        """How many tokens a session can hold."""
        return self.shape.max_position_embeddings

    def session(self) -> OnnxSession:
        """One sequence, empty so far. Sessions are independent; one may be fed while another waits."""
        return OnnxSession(self)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits [S, V] behind each of `ids`, float32. Raises InputError."""
        return torch.cat(list(self.session().feed_pieces(ids)))


class OnnxSession:
    """One sequence: the keys and values of the tokens that it was fed."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self.length = 0
        shape = model.shape
        empty = np.zeros((1, shape.kv_heads, 0, shape.head_size), np.float32)
        layers = [(layer, what) for layer in range(shape.layers) for what in ("key", "value")]
        self._cache = {past_name(layer, what): empty for layer, what in layers}
        self._presents = [present_name(layer, what) for layer, what in layers]

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Logits [V] behind the last of `ids`, float64; they follow what was fed before. Raises InputError."""
        for logits_SV in self.feed_pieces(ids):
            last_V = logits_SV[-1]
        return last_V.to(torch.float64)

    def feed_pieces(self, ids: Sequence[int]) -> Iterator[Tensor]:
        """Logits [S, V] of at most PIECE_TOKENS tokens at a time."""
        check_ids(ids, self._model.shape, self.length)
        for start in range(0, len(ids), PIECE_TOKENS):
            yield self._feed_piece(ids[start : start + PIECE_TOKENS])

    def _feed_piece(self, ids: Sequence[int]) -> Tensor:
        end = self.length + len(ids)
        tokens = {
            "input_ids": np.asarray([ids], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(self.length, end, dtype=np.int64)[None],
        }
        logits_BSV, *presents = self._model.runtime.run(["logits", *self._presents], {**tokens, **self._cache})
        self._cache = dict(zip(self._cache, presents, strict=True))
        self.length = end
        return torch.from_numpy(logits_BSV[0])


class OnnxClassifier:
    """A classifier in onnxruntime, on the CPU."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        """Load `folder`; threads=0 takes every core. Raises ExportError, TokenizerError, MissingExtraError."""
        self.shape = read_shape(folder)
        self.runtime = open_session(folder, threads)
        self.task = task_of(folder, self.runtime, CLASSIFICATION)
        self.tokenizer = Tokenizer.load(folder)

    @property
    def labels(self) -> list[str]:
        """The labels in the order of the logits."""
        return list(self.task["labels"])

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The probability of each label, by its name, for each text. Raises InputError for an empty text."""
        found: list[dict[str, float]] = []
        for start in range(0, len(texts), BATCH_TEXTS):
            shares_BL = self.logits(self.ids(texts[start : start + BATCH_TEXTS])).softmax(-1)
            found += [dict(zip(self.labels, shares_L, strict=True)) for shares_L in shares_BL.tolist()]
        return found

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text as in training (`finetune.examples.Form`): in the template, behind `<s>`, cut to a row."""
        for number, text in enumerate(texts):
            if not text.strip():
                raise InputError(f"text {number} is empty; there is nothing to classify")
        template, context = self.task.get("template", "{text}"), self.shape.max_position_embeddings
        room = min(self.task.get("sequence_length", context), context) - 1
        part = slice(-room, None) if self.task.get("cut") == "tail" else slice(room)
        encoded = self.tokenizer.encode_many([template.replace("{text}", text.strip()) for text in texts])
        return [[self.tokenizer.bos_id, *ids[part]] for ids in encoded]

    def logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, L] of the ids of B texts, float32; shorter ones are padded here. Raises InputError."""
        for ids in rows:
            check_ids(ids, self.shape)
        longest = max(len(ids) for ids in rows)
        pads = [longest - len(ids) for ids in rows]
        tokens = {
            "input_ids": np.asarray([[*ids, *[0] * pad] for ids, pad in zip(rows, pads, strict=True)], np.int64),
            "attention_mask": np.asarray([[1] * (longest - pad) + [0] * pad for pad in pads], np.int64),
        }
        return torch.from_numpy(self.runtime.run(["logits"], tokens)[0])


def check_ids(ids: Sequence[int], shape: DecoderShape, before: int = 0) -> None:
    """Raise InputError for no ids, an id outside the vocabulary, or more than fit behind `before` tokens."""
    if len(ids) == 0:
        raise InputError("there are no tokens to feed; at least one is needed, such as <s>")
    wrong = [i for i in ids if not 0 <= i < shape.vocabulary_size]
    if wrong:
        raise InputError(f"id {wrong[0]} is not one of the model's {shape.vocabulary_size} ids")
    if before + len(ids) > shape.max_position_embeddings:
        raise InputError(
            f"{before + len(ids)} tokens do not fit: the model's context is {shape.max_position_embeddings} tokens"
        )


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    return onnxruntime
