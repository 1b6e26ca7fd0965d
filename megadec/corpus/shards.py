"""Writes documents as token shards: WebDataset tars of blocks of whole documents, and index.json, written last.

A block holds about a megabyte of tokens, so that a reader maps the tar and takes windows without copying. The same
documents and tokenizer give the same bytes.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from megadec import __version__
from megadec.common.errors import ConfigError, InputError
from megadec.common.files import read_json, sha256_of, storage_errors, whole_folder, write_json
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup.overlap import Sketch
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.tokenize import Encoded, encode_in_order, token_dtype

FORMAT = "megadec-shards"
VERSION = 1
INDEX_NAME = "index.json"
BLOCK_TOKENS = 524_288
SHARD_BYTES = 256 * 2**20
TAR_RECORD_BYTES = 512
_Block = tuple[np.ndarray, list[dict[str, Any]]]
"""Tokens, and the entry of each document in documents.json."""


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
    with (
        whole_folder(folder, replace=overwrite) as partial_folder,
        closing(encode_in_order(documents, tokenizer, workers)) as encoded,
    ):
        return fill_folder(
            encoded, tokenizer, partial_folder,
            name=str(folder), report=report, block_tokens=block_tokens, shard_bytes=shard_bytes,
        )  # fmt: skip


def fill_folder(
    encoded: Iterable[Encoded],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    name: str,
    report: CorpusReport | None = None,
    done: Path | None = None,
    block_tokens: int = BLOCK_TOKENS,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Write shards of these documents and, last, their index into a folder; returns the index.

    name: the data set, in messages. done: how the paths of the files begin that remember each whole shard, so that a
    run that was ended goes on behind them. Raises InputError when there are no documents, StorageError for the disk.
    """
    sources: dict[str, Counter[str]] = {}
    licences: set[str] = set()
    sketch = Sketch()
    blocks = enumerate(_blocks(encoded, block_tokens, sources, licences, sketch))
    shards: list[dict[str, Any]] = []
    for first in blocks:
        path = folder / f"shard-{len(shards):06d}.tar"
        whole = done.with_name(f"{done.name}-{path.stem}.json") if done else None
        if whole and whole.exists():
            shards.append(read_json(whole))
            skipped = sum(1 for _ in islice(blocks, len(shards[-1]["samples"]) - 1))
            assert skipped == len(shards[-1]["samples"]) - 1, f"{path} holds other blocks than this run has"
            continue
        shards.append(_write_tar(path, chain([first], blocks), shard_bytes))
        if whole:
            write_json(whole, shards[-1])
    if not shards:
        raise InputError(f"{name}: no documents came out of the input, and a data set needs at least one")
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
        **{key: sum(s[key] for s in sources.values()) for key in ("tokens", "documents", "characters")},
        "sources": dict(sorted(sources.items())),
        "licences": sorted(licences - {""}),
        "report": report.to_dict() if report else {},
        "sketch": str(sketch),
        "shards": shards,
    }
    write_json(folder / INDEX_NAME, index)
    return index


def _blocks(
    encoded: Iterable[Encoded],
    block_tokens: int,
    sources: dict[str, Counter[str]],
    licences: set[str],
    sketch: Sketch,
) -> Iterator[_Block]:
    """Documents one behind the other, in blocks of `block_tokens` tokens or a few more.

    Counts documents, tokens and characters by source into `sources`, adds licences to `licences`, texts to `sketch`.
    """
    block: list[np.ndarray] = []
    entries: list[dict[str, Any]] = []
    first_token = 0
    for document in encoded:
        sketch.add_digest(bytes.fromhex(document.digest))
        sizes = {"tokens": len(document.tokens), "characters": document.characters}
        entries.append({"id": document.id, "source": document.source, "first_token": first_token, **sizes})
        block.append(document.tokens)
        first_token += len(document.tokens)
        sources.setdefault(document.source, Counter()).update({"documents": 1, **sizes})
        licences.add(document.licence)
        if first_token >= block_tokens:
            yield np.concatenate(block), entries
            block, entries, first_token = [], [], 0
    if block:
        yield np.concatenate(block), entries


def _write_tar(path: Path, blocks: Iterable[tuple[int, _Block]], shard_bytes: int) -> dict[str, Any]:
    """Write blocks to one tar through webdataset's writer until it holds `shard_bytes`; its entry for the index."""
    # Imported here because webdataset imports torch: seconds that the encoding processes need not pay.
    from webdataset.writer import TarWriter

    samples: list[dict[str, Any]] = []
    with storage_errors(path), open(path, "wb") as file, TarWriter(file, encoder=False, mtime=0) as writer:
        for number, (tokens, entries) in blocks:
            key = f"{number:08d}"
            documents = json.dumps({"documents": entries}, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
            array = io.BytesIO()
            np.save(array, tokens, allow_pickle=False)
            # Members follow each other in the order of their names: documents.json, then tokens.npy.
            documents_offset = writer.tarstream.offset + TAR_RECORD_BYTES
            records = -(-len(documents) // TAR_RECORD_BYTES)
            tokens_member = documents_offset + (records + 1) * TAR_RECORD_BYTES
            writer.write({"__key__": key, "documents.json": documents, "tokens.npy": array.getvalue()})
            samples.append(
                {
                    "key": key,
                    "tokens": len(tokens),
                    "tokens_offset": tokens_member + array.tell() - tokens.nbytes,
                    "documents": len(entries),
                    "documents_offset": documents_offset,
                    "documents_bytes": len(documents),
                }
            )
            if writer.tarstream.offset >= shard_bytes:
                break
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        **{name: sum(sample[name] for sample in samples) for name in ("tokens", "documents")},
        "samples": samples,
    }
