"""Writes documents as token shards: WebDataset tars of blocks of whole documents, and index.json, written last.

A block holds about a megabyte of tokens, so that a reader maps the tar and takes windows without copying. A document is
`<s> tokens </s>`, and `<s>` stands nowhere else. The same documents and tokenizer give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import tee
from pathlib import Path
from typing import IO, Any

import numpy as np

from megadec import __version__
from megadec.common.errors import ConfigError, InputError, TokenizerError
from megadec.common.files import storage_errors, whole_folder, write_json
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document, full_text
from megadec.corpus.parallel import chunks_of, map_in_order
from megadec.corpus.report import CorpusReport

FORMAT = "megadec-shards"
VERSION = 1
INDEX_NAME = "index.json"
BLOCK_TOKENS = 524_288
SHARD_BYTES = 256 * 2**20
TAR_HEADER_BYTES = 512
LARGEST_UINT16 = 65_535
_Block = tuple[np.ndarray, list[dict[str, Any]]]
"""Tokens, and the entry of each document in documents.json."""


def token_dtype(vocabulary_size: int) -> str:
    """The stored type of a token: uint16, or uint32 for a vocabulary over 65,535."""
    return "uint16" if vocabulary_size <= LARGEST_UINT16 else "uint32"


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise ConfigError unless a data set may be written there: over nothing, or with `overwrite` over a data set."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / INDEX_NAME).is_file():
        raise ConfigError(f"{folder}: exists and is not a data set (no {INDEX_NAME}), which alone may be overwritten")
    if not overwrite:
        raise ConfigError(f"{folder}: exists already; choose another place or give --overwrite")


def write_shards(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    report: CorpusReport | None = None,
    block_tokens: int = BLOCK_TOKENS,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """Tokenize `documents` with `workers` processes and write them to `folder` as a data set; returns its index.

    `report` is read at the end, when the documents have run out, and goes into the index. An existing folder is
    replaced only with `overwrite`, and only if it is a data set. Raises InputError when there are no documents,
    TokenizerError when a text encodes to `<s>` or `</s>`, ConfigError for the folder, StorageError for the disk.
    """
    check_folder(folder, overwrite)
    counts = _Counts()
    with whole_folder(folder, replace=overwrite) as partial_folder:
        blocks = _blocks(_encode_in_order(documents, tokenizer, workers), block_tokens, counts)
        with closing(blocks):
            shards = _write_tars(partial_folder, blocks, shard_bytes)
        if not shards:
            raise InputError(f"{folder}: no documents came out of the input, and a data set needs at least one")
        index = {
            "format": FORMAT,
            "version": VERSION,
            "pipeline_version": __version__,
            "tokenizer": {
                "sha256": tokenizer.sha256,
                "vocabulary_size": tokenizer.vocabulary_size,
                "bos_id": tokenizer.bos_id,
                "eos_id": tokenizer.eos_id,
            },
            "dtype": token_dtype(tokenizer.vocabulary_size),
            **{name: sum(s[name] for s in counts.sources.values()) for name in ("tokens", "documents", "characters")},
            "sources": dict(sorted(counts.sources.items())),
            "licences": sorted(counts.licences),
            "report": report.to_dict() if report else {},
            "shards": shards,
        }
        write_json(partial_folder / INDEX_NAME, index)
    return index


@dataclass
class _Counts:
    """What the index says of the documents: documents, tokens and characters by source, and the licences."""

    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    licences: set[str] = field(default_factory=set)

    def add(self, document: Document, tokens: int, characters: int) -> None:
        source = self.sources.setdefault(document.source, {"documents": 0, "tokens": 0, "characters": 0})
        source["documents"] += 1
        source["tokens"] += tokens
        source["characters"] += characters
        if document.licence:
            self.licences.add(document.licence)


def _blocks(
    encoded: Iterable[tuple[list[Document], list[np.ndarray]]], block_tokens: int, counts: _Counts
) -> Generator[_Block, None, None]:
    """Documents one behind the other, in blocks of `block_tokens` tokens or a few more."""
    block: list[np.ndarray] = []
    entries: list[dict[str, Any]] = []
    first_token = 0
    for documents, all_tokens in encoded:
        for document, tokens in zip(documents, all_tokens, strict=True):
            characters = len(full_text(document))
            entry = {"id": document.id, "source": document.source, "first_token": first_token}
            entries.append({**entry, "tokens": len(tokens), "characters": characters})
            block.append(tokens)
            first_token += len(tokens)
            counts.add(document, len(tokens), characters)
            if first_token >= block_tokens:
                yield np.concatenate(block), entries
                block, entries, first_token = [], [], 0
    if block:
        yield np.concatenate(block), entries


def _write_tars(folder: Path, blocks: Iterable[_Block], shard_bytes: int) -> list[dict[str, Any]]:
    """Write the blocks to tars, each closed when it holds `shard_bytes` or more; their entries for the index."""
    shards: list[dict[str, Any]] = []
    tar: _Tar | None = None
    try:
        for number, (tokens, entries) in enumerate(blocks):
            tar = tar or _Tar(folder / f"shard-{len(shards):06d}.tar")
            tar.write(f"{number:08d}", tokens, entries)
            if tar.bytes >= shard_bytes:
                shards.append(tar.close())
                tar = None
        if tar is not None:
            shards.append(tar.close())
            tar = None
    finally:
        if tar is not None:
            tar.abandon()
    return shards


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


def encode_documents(documents: Sequence[Document], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Tokens of each document as `<s> ... </s>`. Raises TokenizerError when a text itself gives one of these."""
    dtype = token_dtype(tokenizer.vocabulary_size)
    encoded = []
    for document, ids in zip(documents, tokenizer.encode_many(list(map(full_text, documents))), strict=True):
        for name, special in (("<s>", tokenizer.bos_id), ("</s>", tokenizer.eos_id)):
            if special in ids:
                raise TokenizerError(
                    f"{tokenizer.path}: document {document.id} encodes to {name}, which only marks boundaries"
                )
        encoded.append(np.array([tokenizer.bos_id, *ids, tokenizer.eos_id], dtype=dtype))
    return encoded


def _encode_in_order(
    documents: Iterable[Document], tokenizer: Tokenizer, workers: int
) -> Iterator[tuple[list[Document], list[np.ndarray]]]:
    """Chunks of documents with their tokens, in the order of the input."""
    chunks, sent = tee(chunks_of(documents))
    with closing(map_in_order(partial(encode_documents, tokenizer=tokenizer), sent, workers)) as encoded:
        yield from zip(chunks, encoded, strict=True)
