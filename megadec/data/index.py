"""A data set on disk: its index checked, its tokens mapped.

In: a folder written by megadec.corpus.shards. Out: tokens by their number in the set, without copying while they lie in
one block, and the documents around them. Trade-off: opening checks names, sizes and offsets, which costs nothing and
finds a cut tar; a flipped byte is found only by `verify`, which reads everything.

Documents are found by `<s>`, which stands nowhere but at their start (the writer sees to that), so that training never
reads documents.json; that table is read, a block at a time, when somebody asks for names.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from megadec.common.errors import ShardError
from megadec.common.files import read_json, sha256_of
from megadec.corpus.shards import FORMAT, INDEX_NAME, VERSION

MAX_OPEN_SHARDS = 128
CACHED_DOCUMENT_BLOCKS = 64
_DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}


class DocumentSpan(NamedTuple):
    """A document of a data set: `first_token` counts from the start of the set, `<s>` and `</s>` are among `tokens`."""

    id: str
    source: str
    first_token: int
    tokens: int
    characters: int


class DataSet:
    """An open data set. Make one with `DataSet.open`.

    `tokens` and `documents` are totals; `sha256` identifies the contents (not the place); `block_starts` int64
    [blocks + 1] holds the number of each block's first token, and the total at its end.
    """

    def __init__(self, folder: Path, index: Mapping[str, Any], max_open_shards: int) -> None:
        self.folder = folder
        self.name = folder.name
        self.index = index
        tokenizer = index["tokenizer"]
        self.tokenizer_sha256: str = tokenizer["sha256"]
        self.vocabulary_size: int = tokenizer["vocabulary_size"]
        self.bos_id: int = tokenizer["bos_id"]
        self.eos_id: int = tokenizer["eos_id"]
        self.dtype = _DTYPES[index["dtype"]]
        self.tokens: int = index["tokens"]
        self.documents: int = index["documents"]
        self.sha256 = _content_hash(index)
        samples = [(number, sample) for number, shard in enumerate(index["shards"]) for sample in shard["samples"]]
        self._samples = [sample for _, sample in samples]
        self._shard_of = [number for number, _ in samples]
        self._first_item = [sample["tokens_offset"] // self.dtype.itemsize for sample in self._samples]
        self.block_starts = np.concatenate([[0], np.cumsum([s["tokens"] for s in self._samples], dtype=np.int64)])
        # Plain integers: one look-up by bisect is several times faster than one by numpy.
        self._starts: list[int] = self.block_starts.tolist()
        self._map = lru_cache(max_open_shards)(self._map_shard)
        self._documents = lru_cache(CACHED_DOCUMENT_BLOCKS)(self._read_documents)

    @classmethod
    def open(
        cls, folder: Path | str, tokenizer_sha256: str | None = None, *, max_open_shards: int = MAX_OPEN_SHARDS
    ) -> DataSet:
        """Open the data set in `folder`; with `tokenizer_sha256`, only if it was written with that tokenizer.

        At most `max_open_shards` tars are mapped at a time. Raises ShardError when there is no index, when the index is
        not one of ours or of another version, when a tar is missing or has another size, or for another tokenizer.
        """
        folder = Path(folder)
        path = folder / INDEX_NAME
        if not path.is_file():
            raise ShardError(
                f"{folder} has no {INDEX_NAME}: no shards at all, or a half-written set;"
                f" `python tools/prepare.py ... --output {folder}` makes them"
            )
        index = read_json(path, ShardError)
        _check_index(path, index)
        _check_tars(folder, index)
        found = index["tokenizer"]["sha256"]
        if tokenizer_sha256 is not None and found != tokenizer_sha256:
            raise ShardError(
                f"{path}: tokenizer.sha256 is {found[:12]}..., the run's tokenizer is {tokenizer_sha256[:12]}...:"
                " shards are read only with the tokenizer that wrote them; prepare them again or name that tokenizer"
            )
        return cls(folder, index, max_open_shards)

    @property
    def blocks(self) -> int:
        return len(self._samples)

    def tokens_at(self, first: int, count: int) -> np.ndarray:
        """Tokens first, ..., first + count - 1 of the set, read-only; a view of the mapped tar within one block."""
        block = bisect_right(self._starts, first) - 1
        stop = self._starts[block + 1]
        if first + count <= stop:
            item = self._first_item[block] + first - self._starts[block]
            return self._map(self._shard_of[block])[item : item + count]
        return np.concatenate([self.tokens_at(first, stop - first), self.tokens_at(stop, first + count - stop)])

    def block_tokens(self, block: int) -> np.ndarray:
        """All tokens of a block, a view of the mapped tar."""
        return self.tokens_at(self._starts[block], self._starts[block + 1] - self._starts[block])

    def documents_between(self, first: int, stop: int) -> list[DocumentSpan]:
        """The documents that own tokens first, ..., stop - 1, in order."""
        found: list[DocumentSpan] = []
        block = bisect_right(self._starts, first) - 1
        while block < self.blocks and self._starts[block] < stop:
            spans, starts = self._documents(block)
            found.extend(spans[max(bisect_right(starts, first) - 1, 0) : bisect_right(starts, stop - 1)])
            block += 1
        return found

    def verify(self) -> None:
        """Read everything and compare with the index. Raises ShardError naming the first tar that differs."""
        for shard in self.index["shards"]:
            path = self.folder / shard["name"]
            if (found := sha256_of(path)) != shard["sha256"]:
                raise ShardError(
                    f"{path}: sha256 is {found[:12]}..., {INDEX_NAME} says {shard['sha256'][:12]}...:"
                    " its contents changed after it was written; prepare or copy it again"
                )
        starts = sum(int(np.count_nonzero(self.block_tokens(block) == self.bos_id)) for block in range(self.blocks))
        if starts != self.documents:
            raise ShardError(
                f"{self.folder}: {starts} documents begin in the tokens, {INDEX_NAME} says {self.documents}"
            )

    def _map_shard(self, number: int) -> np.ndarray:
        path = self.folder / self.index["shards"][number]["name"]
        # asarray drops the memmap class, whose slicing is five times slower; the array still holds the map open.
        return np.asarray(np.memmap(path, dtype=self.dtype, mode="r"))

    def documents_table(self, block: int) -> bytes:
        """The documents.json of a block as it lies in its tar."""
        sample = self._samples[block]
        with open(self._tar_of(block), "rb") as file:
            file.seek(sample["documents_offset"])
            return file.read(sample["documents_bytes"])

    def _tar_of(self, block: int) -> Path:
        return self.folder / str(self.index["shards"][self._shard_of[block]]["name"])

    def _read_documents(self, block: int) -> tuple[list[DocumentSpan], list[int]]:
        sample, start, path = self._samples[block], self._starts[block], self._tar_of(block)
        raw = self.documents_table(block)
        try:
            entries = json.loads(raw)["documents"]
            spans = [
                DocumentSpan(e["id"], e["source"], start + e["first_token"], e["tokens"], e["characters"])
                for e in entries
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{path}: the documents of sample {sample['key']} are not readable: {error}") from error
        return spans, [span.first_token for span in spans]


def _content_hash(index: Mapping[str, Any]) -> str:
    shards = [(shard["sha256"], shard["tokens"], shard["documents"]) for shard in index["shards"]]
    identity = json.dumps([VERSION, index["tokenizer"]["sha256"], index["dtype"], shards])
    return hashlib.sha256(identity.encode("ascii")).hexdigest()


_SAMPLE_FIELDS = ("tokens", "tokens_offset", "documents", "documents_offset", "documents_bytes")


def _check_index(path: Path, index: Any) -> None:
    """Raise ShardError unless `index` is a whole index of this version."""
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        found = index.get("format") if isinstance(index, dict) else type(index).__name__
        raise ShardError(f"{path}: format is {found!r}, not {FORMAT!r}: not an index of token shards")
    if index.get("version") != VERSION:
        raise ShardError(f"{path}: version is {index.get('version')!r}, this megadec reads version {VERSION}")
    try:
        _check_values(path, index)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ShardError(f"{path} is not whole: {type(error).__name__} {error} where a field is expected") from error


def _check_values(path: Path, index: Mapping[str, Any]) -> None:
    tokenizer = index["tokenizer"]
    for name in ("sha256", "vocabulary_size", "bos_id", "eos_id"):
        tokenizer[name]
    if index["dtype"] not in _DTYPES:
        raise ShardError(f"{path}: dtype is {index['dtype']!r}, known are {', '.join(_DTYPES)}")
    for name in ("tokens", "documents"):
        total = sum(shard[name] for shard in index["shards"])
        if index[name] != total or total < 1:
            raise ShardError(f"{path}: {name} is {index[name]}, the shards hold {total}; they must agree and not be 0")
    itemsize = _DTYPES[index["dtype"]].itemsize
    for shard in index["shards"]:
        _check_samples(path, shard, itemsize)


def _check_samples(path: Path, shard: Mapping[str, Any], itemsize: int) -> None:
    values = np.array([[sample[name] for name in _SAMPLE_FIELDS] for sample in shard["samples"]], dtype=np.int64)
    tokens, tokens_offset, documents, documents_offset, documents_bytes = values.T
    if tokens.sum() != shard["tokens"] or documents.sum() != shard["documents"]:
        raise ShardError(f"{path}: {shard['name']}: its samples do not add up to its tokens and documents")
    beyond = np.maximum(tokens_offset + tokens * itemsize, documents_offset + documents_bytes) > shard["bytes"]
    if beyond.any() or (values < 0).any() or (tokens_offset % itemsize).any():
        raise ShardError(f"{path}: {shard['name']}: a sample's offsets do not lie inside its {shard['bytes']} bytes")


def _check_tars(folder: Path, index: Mapping[str, Any]) -> None:
    for shard in index["shards"]:
        path = folder / shard["name"]
        if not path.is_file():
            raise ShardError(f"{path} is missing, {INDEX_NAME} names it: copy it again")
        if (size := path.stat().st_size) != shard["bytes"]:
            state = "it was cut" if size < shard["bytes"] else "it is another file"
            raise ShardError(f"{path} has {size} bytes, {INDEX_NAME} says {shard['bytes']}: {state}; copy it again")
