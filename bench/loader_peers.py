"""Other loaders on the documents of a data set, for `bench/loader.py`.

In: an open data set, a folder to write into, the sizes. Out: functions that go once through all windows and yield them
as batches. The batch is made by `megadec.data.batch.assemble` for all, so that what differs is how a loader comes to
its tokens; a peer that is not installed is left out, and the result says why.
"""

import importlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from megadec.data.batch import TokenBatch, assemble
from megadec.data.dataset import DataSet, DocumentSpan
from megadec.data.windows import CutPlan

Batches = Callable[[], Iterator[TokenBatch]]
TAR_DOCUMENTS = 20_000


class _Row(CutPlan):
    """A window that is at hand, in the form in which `assemble` takes it."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.data: Any = self
        self.sequence_length = len(tokens) - 1
        self.windows = 1
        self._tokens = tokens

    def pieces(self, window: int) -> list[tuple[int, int]]:
        return [(0, self.sequence_length)]

    def windows_with(self, span: DocumentSpan) -> list[int]:
        return [0]

    def tokens_at(self, first: int, count: int) -> np.ndarray:
        return self._tokens


def webdataset_of_documents(data: DataSet, folder: Path, sequence_length: int, rows: int) -> Batches:
    """webdataset's usual layout: a document a sample, in tars of many."""
    from webdataset import TarWriter

    spans = data.documents_between(0, data.tokens)
    tars = []
    for number, first in enumerate(range(0, len(spans), TAR_DOCUMENTS)):
        path = folder / f"documents-{number:06d}.tar"
        with TarWriter(str(path), encoder=False, mtime=0) as writer:
            for key, span in enumerate(spans[first : first + TAR_DOCUMENTS], start=first):
                array = io.BytesIO()
                np.lib.format.write_array(array, data.tokens_at(span.first_token, span.tokens), version=(1, 0))
                writer.write({"__key__": f"{key:09d}", "tokens.npy": array.getvalue()})
        tars.append(str(path))
    return lambda: _batches(_webdataset(tars), sequence_length, rows, data.bos_id)


def webdataset_of_blocks(data: DataSet, sequence_length: int, rows: int) -> Batches:
    """webdataset on the data set's own tars, a block of documents a sample."""
    tars = [str(Path(data.folder) / shard["name"]) for shard in data.index["shards"]]
    return lambda: _batches(_webdataset(tars), sequence_length, rows, data.bos_id)


def _webdataset(tars: list[str]) -> Iterable[np.ndarray]:
    from webdataset import WebDataset

    # Only the tokens are decoded; a document's names cost nothing but their bytes.
    samples = WebDataset(tars, shardshuffle=False, select_files=lambda name: name.endswith(".npy")).decode()
    return (sample["tokens.npy"] for sample in samples)


def missing_mosaic() -> str | None:
    """Why mosaicml-streaming cannot take part, or None."""
    try:
        importlib.import_module("streaming")
    except ImportError as error:
        return f"mosaicml-streaming is not installed: {error}"
    return None


def mosaic_batches(data: DataSet, folder: Path, sequence_length: int, rows: int) -> Batches:
    """mosaicml-streaming's usual layout for language models: a window a sample, as bytes."""
    os.environ.setdefault("MOSAICML_STREAMING_DISABLE_TELEMETRY", "1")
    streaming = importlib.import_module("streaming")
    windows = -(-(data.tokens - 1) // sequence_length)
    with streaming.MDSWriter(out=str(folder / "mds"), columns={"tokens": "bytes"}) as writer:
        for window in range(windows):
            first = window * sequence_length
            writer.write({"tokens": data.tokens_at(first, min(sequence_length + 1, data.tokens - first)).tobytes()})
    dataset = streaming.StreamingDataset(local=str(folder / "mds"), batch_size=rows, shuffle=False)

    def batches() -> Iterator[TokenBatch]:
        waiting = []
        for sample in dataset:
            waiting.append(_Row(np.frombuffer(sample["tokens"], dtype=data.dtype)))
            if len(waiting) == rows:
                yield _assembled(waiting, sequence_length, data.bos_id)
                waiting = []
        if waiting:
            yield _assembled(waiting, sequence_length, data.bos_id)

    return batches


def _batches(parts: Iterable[np.ndarray], sequence_length: int, rows: int, bos_id: int) -> Iterator[TokenBatch]:
    """Join the parts, cut windows every sequence_length; the last may be short."""
    step = sequence_length * rows
    held: list[np.ndarray] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        if count <= step:
            continue
        joined = np.concatenate(held) if len(held) > 1 else part
        at = 0
        while count - at > step:
            yield _cut(joined[at : at + step + 1], sequence_length, bos_id)
            at += step
        held, count = [joined[at:]], count - at
    if count > 1:
        yield _cut(np.concatenate(held), sequence_length, bos_id)


def _cut(tokens: np.ndarray, sequence_length: int, bos_id: int) -> TokenBatch:
    starts = range(0, len(tokens) - 1, sequence_length)
    return _assembled([_Row(tokens[first : first + sequence_length + 1]) for first in starts], sequence_length, bos_id)


def _assembled(rows: list[_Row], sequence_length: int, bos_id: int) -> TokenBatch:
    return assemble([(row, 0) for row in rows], sequence_length, bos_id)
