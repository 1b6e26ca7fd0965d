"""An exported ONNX folder -> logits: the door to onnxruntime.

A prompt is fed in pieces, because the graph gives the logits of every new token and attends with all of them at once:
memory is bounded by a piece, and a long prompt costs a few calls more.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ExportError, needs_extra
from megadec.common.schema import check_schema, shown, without_null
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.shape import DecoderShape
from megadec.decoding.session import check_ids
from megadec.export.onnx.decoder import caches
from megadec.export.onnx.files import MODEL_FILE, TASK_NOTE
from megadec.export.read.inputs import Form
from megadec.export.read.megadec import read_shape
from megadec.export.read.source import CLASSIFICATION, LANGUAGE_MODEL, TASK

PIECE_TOKENS = 256
BATCH_TEXTS = 16

# Shapes: B batch, S new tokens, V vocabulary, L labels.


def _open(folder: Path, kind: str) -> tuple[DecoderShape, Any, dict[str, Any]]:
    """The shape in `folder`, onnxruntime's session on the CPU, and the task that the graph carries.

    Raises ExportError when the task is of another kind, MissingExtraError.
    """
    with needs_extra("onnxruntime", "onnx"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    # A thread without work sleeps: others need the core, our own part of a service not least.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only; what it would warn of is compared before an export has its name
    shape, file = read_shape(folder), folder / MODEL_FILE
    if not file.is_file():
        raise ExportError(f"{folder} has no {MODEL_FILE}; a folder that --to onnx wrote has one")
    try:
        runtime = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base and are not public
        raise ExportError(f"{file}: onnxruntime cannot load it: {error}") from error
    task = _task(file, runtime.get_modelmeta().custom_metadata_map.get(TASK_NOTE, "{}"))
    if task.get("kind") != kind:
        raise ExportError(f"{file} is for {task.get('kind')}; a {kind} was wanted")
    inputs = len(runtime.get_inputs())
    if kind == LANGUAGE_MODEL and inputs != 3 + 2 * shape.layers:  # ids, mask, positions; keys and values of each layer
        raise ExportError(f"{folder}: shape.json states {shape.layers} layers, and the graph has {inputs} inputs")
    return shape, runtime, task


def _task(file: Path, note: str) -> dict[str, Any]:
    """The task that a graph states. Raises ExportError."""
    try:
        task: dict[str, Any] = without_null(json.loads(note))
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{file}: its {TASK_NOTE} is not JSON: {shown(note)}") from error
    check_schema(task, TASK, f"{file}: {TASK_NOTE}", ExportError)
    if task.get("kind") == CLASSIFICATION and not task.get("labels"):
        raise ExportError(f"{file}: its {TASK_NOTE} names no labels")
    return task


class OnnxModel:
    """A decoder in onnxruntime, on the CPU."""

    def __init__(self, folder: Path) -> None:
        """Load `folder`. Raises ExportError, MissingExtraError."""
        self.shape, self.runtime, _ = _open(folder, LANGUAGE_MODEL)
        self.vocabulary_size = self.shape.vocabulary_size
        self.max_position_embeddings = self.shape.max_position_embeddings

    def session(self) -> "OnnxSession":
        """One sequence, empty so far. Sessions are independent; one may be fed while another waits."""
        return OnnxSession(self, 1)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits [S, V] behind each of `ids`, float32. Raises InputError."""
        return self.session().feed_rows([ids])[0]


class OnnxSession:
    """Some sequences, one where a text is generated: the keys and values of the tokens that each was fed."""

    def __init__(self, model: OnnxModel, sequences: int) -> None:
        self._model = model
        shape = model.shape
        # 1 for a token, 0 for padding, which stands in front of what a shorter row was fed.
        self._mask_BT = np.zeros((sequences, 0), np.int64)
        empty = np.zeros((sequences, shape.kv_heads, 0, shape.head_size), np.float32)
        self._cache = dict.fromkeys(caches(shape), empty)
        self._presents = list(caches(shape).values())

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Logits [V] behind the last of `ids`, float64; they follow what was fed before. Raises InputError."""
        for logits_BSV in self._feed([ids]):
            last_V = logits_BSV[0, -1]
        return last_V.to(torch.float64)

    def feed_rows(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits [S, V] behind each id of each sequence's row, float32. Raises InputError."""
        logits_BSV = torch.cat(list(self._feed(rows)), dim=1)
        return [logits_SV[-len(ids) :] for ids, logits_SV in zip(rows, logits_BSV, strict=True)]

    def _feed(self, rows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Logits [B, S, V] of at most PIECE_TOKENS tokens of each row at a time."""
        for ids, length in zip(rows, self._mask_BT.sum(1).tolist(), strict=True):
            check_ids(ids, self._model.vocabulary_size, self._model.max_position_embeddings, length)
        padding = [max(map(len, rows)) - len(ids) for ids in rows]
        ids_BS = np.asarray([[0] * pad + list(ids) for pad, ids in zip(padding, rows, strict=True)], np.int64)
        new_BS = np.asarray([[0] * pad + [1] * len(ids) for pad, ids in zip(padding, rows, strict=True)], np.int64)
        for start in range(0, ids_BS.shape[1], PIECE_TOKENS):
            piece = slice(start, start + PIECE_TOKENS)
            yield self._feed_piece(ids_BS[:, piece], new_BS[:, piece])

    def _feed_piece(self, ids_BS: np.ndarray, new_BS: np.ndarray) -> Tensor:
        self._mask_BT = np.concatenate([self._mask_BT, new_BS], axis=1)
        positions_BT = np.maximum(self._mask_BT.cumsum(1) - 1, 0)
        tokens = {
            "input_ids": ids_BS,
            "attention_mask": self._mask_BT,
            "position_ids": positions_BT[:, -ids_BS.shape[1] :],
        }
        logits_BSV, *presents = self._model.runtime.run(["logits", *self._presents], {**tokens, **self._cache})
        self._cache = dict(zip(self._cache, presents, strict=True))
        return torch.from_numpy(logits_BSV)


class OnnxClassifier:
    """A classifier in onnxruntime, on the CPU."""

    def __init__(self, folder: Path) -> None:
        """Load `folder`. Raises ExportError, TokenizerError, MissingExtraError."""
        self.shape, self.runtime, self.task = _open(folder, CLASSIFICATION)
        self.labels: list[str] = self.task["labels"]
        self.form = Form.of_task(self.task, self.shape.max_position_embeddings)
        self.tokenizer = Tokenizer.load(folder)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Whether a part of each text is left out, as it is longer than what the classifier was trained on."""
        return self.form.truncated(self.tokenizer, texts)

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The probability of each label, by its name, for each text. Raises InputError for an empty text."""
        encoded = self.form.encode(self.tokenizer, texts)
        parts = [encoded[start : start + BATCH_TEXTS] for start in range(0, len(encoded), BATCH_TEXTS)]
        rows = [row for part in parts for row in self.logits(part).softmax(-1).tolist()]
        return [dict(zip(self.labels, row, strict=True)) for row in rows]

    def logits(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, L] of the ids of B texts, float32; shorter ones are padded here. Raises InputError."""
        for ids in sequences:
            check_ids(ids, self.shape.vocabulary_size, self.shape.max_position_embeddings)
        longest = max(map(len, sequences))
        tokens = {
            "input_ids": np.asarray([[*ids, *[0] * (longest - len(ids))] for ids in sequences], np.int64),
            "attention_mask": np.asarray([[1] * len(ids) + [0] * (longest - len(ids)) for ids in sequences], np.int64),
        }
        return torch.from_numpy(self.runtime.run(["logits"], tokens)[0])
