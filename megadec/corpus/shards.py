"""Token shards: documents become blocks of tokens in WebDataset tars, with an index beside them.

In: documents, one at a time, and a tokenizer. Out: a folder of `shard-000000.tar`, ... and `index.json`, which appears
under its final name at once. A sample is a block of about a megabyte of whole documents, so that a reader can map the
tar and take windows of tokens without copying; who wants single documents has to cut the block himself.

Every document is stored as `<s> tokens </s>`, and `<s>` stands nowhere else: that is how readers find the boundaries.
The same documents and tokenizer give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np

from megadec import __version__
from megadec.common.errors import ConfigError, InputError, TokenizerError
from megadec.common.files import storage_errors, whole_folder, write_json
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document, full_text
from megadec.corpus.report import Report

FORMAT = "megadec-shards"
VERSION = 1
INDEX_NAME = "index.json"
BLOCK_TOKENS = 524_288
SHARD_BYTES = 256 * 2**20
TAR_HEADER_BYTES = 512
ENCODE_DOCUMENTS = 256
LARGEST_UINT16 = 65_535


class Encoded(NamedTuple):
    """A chunk of documents as tokens: `<s> ... </s>` one after the other, and how many tokens each has."""

    tokens: np.ndarray
    lengths: np.ndarray


def token_dtype(vocabulary_size: int) -> str:
    """The stored type of a token: uint16, or uint32 for a vocabulary over 65,535."""
    return "uint16" if vocabulary_size <= LARGEST_UINT16 else "uint32"


def write_shards(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    report: Report | None = None,
    block_tokens: int = BLOCK_TOKENS,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """Tokenise `documents` with `workers` processes and write them to `folder` as a data set; returns its index.

    `report` is read at the end, when the documents have run out, and goes into the index. An existing folder is
    replaced only with `overwrite`, and only if it is a data set. Raises InputError when there are no documents,
    TokenizerError when a text encodes to `<s>` or `</s>`, ConfigError for the folder or the sizes, StorageError for the
    disk.
    """
    folder = Path(folder)
    _check_sizes(block_tokens=block_tokens, shard_bytes=shard_bytes, workers=workers)
    if overwrite and folder.is_dir() and any(folder.iterdir()) and not (folder / INDEX_NAME).is_file():
        raise ConfigError(f"{folder} holds files but no {INDEX_NAME}: only a data set is overwritten")
    with whole_folder(folder, replace=overwrite) as partial:
        with ShardWriter(partial, tokenizer, block_tokens=block_tokens, shard_bytes=shard_bytes) as writer:
            for chunk, encoded in _encode_in_order(documents, tokenizer, workers):
                writer.add(chunk, encoded)
        if writer.documents == 0:
            raise InputError(f"{folder}: no documents came out of the input, and a data set needs at least one")
        index = writer.index(report)
        write_json(partial / INDEX_NAME, index)
    return index


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(f"{name}={value} is not at least 1")


class ShardWriter:
    """Collects documents into blocks and writes the blocks to tars in `folder`, which must exist.

    A block is closed when it holds `block_tokens` or more, a tar when it holds `shard_bytes` or more. Use as a context
    manager: leaving it writes the last block; leaving it with an exception writes nothing more.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, *, block_tokens: int, shard_bytes: int) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self._block_tokens = block_tokens
        self._shard_bytes = shard_bytes
        self._dtype = token_dtype(tokenizer.vocabulary_size)
        self._tar: _Tar | None = None
        self._block: list[np.ndarray] = []
        self._entries: list[dict[str, Any]] = []
        self._waiting_tokens = 0
        self._blocks = 0
        self._shards: list[dict[str, Any]] = []
        self._sources: dict[str, dict[str, int]] = {}
        self._licences: set[str] = set()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_block()
                self._close_tar()
        finally:
            if self._tar is not None:
                self._tar.abandon()

    @property
    def documents(self) -> int:
        """Documents added so far."""
        return sum(source["documents"] for source in self._sources.values())

    def add(self, documents: Sequence[Document], encoded: Encoded) -> None:
        """Add documents and their tokens, in order."""
        ends = np.cumsum(encoded.lengths)
        for document, length, end in zip(documents, encoded.lengths.tolist(), ends.tolist(), strict=True):
            characters = len(full_text(document))
            entry = {"id": document.id, "source": document.source, "first_token": self._waiting_tokens}
            self._entries.append({**entry, "tokens": length, "characters": characters})
            self._block.append(encoded.tokens[end - length : end])
            self._waiting_tokens += length
            self._count(document, length, characters)
            if self._waiting_tokens >= self._block_tokens:
                self._write_block()

    def index(self, report: Report | None) -> dict[str, Any]:
        """The index of everything written, as it goes into index.json."""
        sources = dict(sorted(self._sources.items()))
        totals = {name: sum(s[name] for s in sources.values()) for name in ("tokens", "documents", "characters")}
        tokenizer = self._tokenizer
        return {
            "format": FORMAT,
            "version": VERSION,
            "pipeline_version": __version__,
            "tokenizer": {
                "sha256": tokenizer.sha256,
                "vocabulary_size": tokenizer.vocabulary_size,
                "bos_id": tokenizer.bos_id,
                "eos_id": tokenizer.eos_id,
            },
            "dtype": self._dtype,
            **totals,
            "sources": sources,
            "licences": sorted(self._licences),
            "report": report.to_dict() if report is not None else {},
            "shards": self._shards,
        }

    def _count(self, document: Document, tokens: int, characters: int) -> None:
        source = self._sources.setdefault(document.source, {"documents": 0, "tokens": 0, "characters": 0})
        source["documents"] += 1
        source["tokens"] += tokens
        source["characters"] += characters
        if document.licence:
            self._licences.add(document.licence)

    def _write_block(self) -> None:
        if not self._entries:
            return
        if self._tar is None:
            self._tar = _Tar(self._folder / f"shard-{len(self._shards):06d}.tar")
        self._tar.write(f"{self._blocks:08d}", np.concatenate(self._block), self._entries)
        self._blocks += 1
        self._block, self._entries, self._waiting_tokens = [], [], 0
        if self._tar.bytes >= self._shard_bytes:
            self._close_tar()

    def _close_tar(self) -> None:
        if self._tar is not None:
            self._shards.append(self._tar.close())
            self._tar = None


class _Tar:
    """One tar being written through webdataset's writer, and its entry in the index."""

    def __init__(self, path: Path) -> None:
        # Imported here because webdataset imports torch: seconds that the encoding processes need not pay.
        from webdataset.writer import TarWriter

        self._path = path
        with storage_errors(path):
            self._stream = _HashedStream(open(path, "wb"))  # noqa: SIM115 (closed by close and abandon)
        self._writer = TarWriter(self._stream, encoder=False, mtime=0)
        self._samples: list[dict[str, Any]] = []

    @property
    def bytes(self) -> int:
        offset: int = self._writer.tarstream.offset
        return offset

    def write(self, key: str, tokens: np.ndarray, entries: list[dict[str, Any]]) -> None:
        """Write one sample. Members follow each other in the order of their names: documents.json, then tokens.npy."""
        documents = json.dumps({"documents": entries}, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        array = _npy_bytes(tokens)
        documents_offset = self.bytes + TAR_HEADER_BYTES
        with storage_errors(self._path):
            self._writer.write({"__key__": key, "documents.json": documents, "tokens.npy": array})
        tokens_member = documents_offset + _whole_records(len(documents)) + TAR_HEADER_BYTES
        self._samples.append(
            {
                "key": key,
                "tokens": len(tokens),
                "tokens_offset": tokens_member + len(array) - tokens.nbytes,
                "documents": len(entries),
                "documents_offset": documents_offset,
                "documents_bytes": len(documents),
            }
        )

    def close(self) -> dict[str, Any]:
        """Finish the tar and give its entry for the index."""
        with storage_errors(self._path):
            self._writer.close()
            self._stream.close()
        return {
            "name": self._path.name,
            "bytes": self._stream.bytes,
            "sha256": self._stream.digest.hexdigest(),
            "tokens": sum(sample["tokens"] for sample in self._samples),
            "documents": sum(sample["documents"] for sample in self._samples),
            "samples": self._samples,
        }

    def abandon(self) -> None:
        """Close the file without writing the rest, after an error."""
        self._stream.abandoned = True
        self._writer.close()
        self._stream.close()


class _HashedStream:
    """A file that hashes what is written to it; after `abandoned`, writing does nothing (the disk may be full)."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.bytes = 0
        self.abandoned = False

    def write(self, data: bytes) -> int:
        if not self.abandoned:
            self._file.write(data)
            self.digest.update(data)
            self.bytes += len(data)
        return len(data)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:
            # Closing flushes; on a full disk the error that made us abandon the file is already on its way up.
            if not self.abandoned:
                raise


def _npy_bytes(tokens: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, tokens, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _whole_records(size: int) -> int:
    return -(-size // TAR_HEADER_BYTES) * TAR_HEADER_BYTES


def encode_documents(documents: Sequence[Document], tokenizer: Tokenizer) -> Encoded:
    """Tokens of the documents, each as `<s> ... </s>`. Raises TokenizerError when a text itself gives one of these."""
    dtype = token_dtype(tokenizer.vocabulary_size)
    all_ids = tokenizer.encode_many([full_text(document) for document in documents])
    lengths = np.fromiter((len(ids) + 2 for ids in all_ids), dtype=np.int64, count=len(all_ids))
    flat: list[int] = []
    for ids in all_ids:
        flat.append(tokenizer.bos_id)
        flat.extend(ids)
        flat.append(tokenizer.eos_id)
    tokens = np.array(flat, dtype=dtype)
    for name, special in (("<s>", tokenizer.bos_id), ("</s>", tokenizer.eos_id)):
        if np.count_nonzero(tokens == special) != len(documents):
            culprit = next(document.id for document, ids in zip(documents, all_ids, strict=True) if special in ids)
            raise TokenizerError(f"{tokenizer.path}: document {culprit} encodes to {name}, which only marks boundaries")
    return Encoded(tokens, lengths)


def _encode_in_order(
    documents: Iterable[Document], tokenizer: Tokenizer, workers: int
) -> Iterator[tuple[list[Document], Encoded]]:
    """Chunks of documents with their tokens, in the order of the input, a bounded number of chunks ahead."""
    chunks = _chunks(documents)
    if workers == 1:
        for chunk in chunks:
            yield chunk, encode_documents(chunk, tokenizer)
        return
    # spawn: a fork of a process that has threads (torch, pyarrow) may hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_load_tokenizer, initargs=(tokenizer.path,))
    with pool:
        ahead: deque[tuple[list[Document], Future[Encoded]]] = deque()
        try:
            for chunk in chunks:
                ahead.append((chunk, pool.submit(_encode_in_worker, chunk)))
                if len(ahead) > 2 * workers:
                    done, future = ahead.popleft()
                    yield done, future.result()
            while ahead:
                done, future = ahead.popleft()
                yield done, future.result()
        finally:
            for _, future in ahead:
                future.cancel()


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while chunk := list(islice(iterator, ENCODE_DOCUMENTS)):
        yield chunk


_worker_tokenizer: Tokenizer


def _load_tokenizer(path: Path) -> None:
    global _worker_tokenizer
    _worker_tokenizer = Tokenizer.load(path)


def _encode_in_worker(documents: Sequence[Document]) -> Encoded:
    return encode_documents(documents, _worker_tokenizer)
