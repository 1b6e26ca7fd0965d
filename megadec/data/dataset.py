"""A data set on disk or behind an address: its index checked, its tokens mapped.

Opening checks names, sizes and offsets; a flipped byte is found by `verify`, or when a remote tar is fetched. A damaged
shard may be left out; its tokens keep their numbers. Training finds documents by `<s>` and never reads documents.json.
"""

import hashlib
import json
import mmap
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from megadec.common.errors import ShardError
from megadec.corpus.dedup.overlap import Sketch
from megadec.corpus.shards import FORMAT, INDEX_NAME, VERSION
from megadec.data.shard_cache import DamagedShardError, ShardCacheOptions
from megadec.data.shard_folders import LocalFolder, RemoteFolder, open_folder

MAX_OPEN_SHARDS = 128
CACHED_DOCUMENT_BLOCKS = 64
# From so many on one pass that takes out all ids is faster than a pass for each.
MANY_IDS = 10
_ID = re.compile(rb'"id":("(?:[^"\\]|\\.)*+")')
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

    `tokens` and `documents` are totals; `sha256` identifies the contents (not the place); `block_starts`
    holds the number of each block's first token, and the total at its end. `skipped`: what is wrong with
    the shards that are not read, by their number; totals and `sha256` are those of the whole set all the same.
    """

    def __init__(self, place: LocalFolder | RemoteFolder, index: Mapping[str, Any], skipped: Mapping[int, str]) -> None:
        self.place = place
        self.folder = str(place)
        self.name = place.name
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
        # Plain integers: one look-up by bisect is several times faster than one by numpy.
        self.block_starts: list[int] = [0, *accumulate(sample["tokens"] for sample in self._samples)]
        self.skipped = dict(sorted(skipped.items()))
        self._map = lru_cache(MAX_OPEN_SHARDS)(self._map_shard)
        self._documents = lru_cache(CACHED_DOCUMENT_BLOCKS)(self._read_documents)

    @property
    def sketch(self) -> Sketch:
        """What tells how many documents another set has in common with this one."""
        return Sketch(self.documents, self.index.get("sketch", ""))

    @classmethod
    def open(
        cls,
        folder: Path | str,
        tokenizer_sha256: str | None = None,
        *,
        cache: ShardCacheOptions | None = None,
        skip_damaged: bool = False,
    ) -> Self:
        """Open the data set in `folder` (a path, or an address); with `tokenizer_sha256`, only if it was written with
        that tokenizer.

        cache: where remote shards are kept. Raises ShardError when
        there is no index, when the index is not one of ours or of another version, when a tar is missing or has another
        size (unless skip_damaged, and one is left), or for another tokenizer.
        """
        place = open_folder(folder, cache)
        index = place.read_index()
        path = f"{place}/{INDEX_NAME}"
        _check_index(path, index)
        if tokenizer_sha256 is not None:
            check_tokenizer(path, index, tokenizer_sha256)
        skipped = {}
        for number, shard in enumerate(index["shards"]):
            if (wrong := place.examine(shard, "sizes")) is not None:
                skipped[number] = wrong
                if not skip_damaged or len(skipped) == len(index["shards"]):
                    raise DamagedShardError(wrong)
        return cls(place, index, skipped)

    def without(self, damaged: Mapping[int, str]) -> "DataSet":
        """The same set with other shards left out. Raises DamagedShardError when none would be left."""
        if len(damaged) == len(self.index["shards"]):
            raise DamagedShardError(f"{self.folder}: every shard is damaged; the first: {next(iter(damaged.values()))}")
        return DataSet(self.place, self.index, damaged)

    def numbers_of(self, sha256: Sequence[str]) -> list[int]:
        """The numbers of the shards with these hashes; shards that share a hash are found together or not at all."""
        wanted, there = Counter(sha256), Counter(shard["sha256"] for shard in self.index["shards"])
        known = {one for one, count in wanted.items() if count >= there[one]}
        return [number for number, shard in enumerate(self.index["shards"]) if shard["sha256"] in known]

    @property
    def lost_ranges(self) -> list[tuple[int, int]]:
        """First token and the one after the last, of each shard that is left out."""
        ends = np.cumsum([shard["tokens"] for shard in self.index["shards"]]).tolist()
        return [(ends[number] - self.index["shards"][number]["tokens"], ends[number]) for number in self.skipped]

    def is_lost_block(self, block: int) -> bool:
        """Whether the block lies in a shard that is left out."""
        return self._shard_of[block] in self.skipped

    @property
    def blocks(self) -> int:
        return len(self._samples)

    def tokens_at(self, first: int, count: int) -> np.ndarray:
        """Tokens first, ..., first + count - 1 of the set, read-only; a view of the mapped tar within one block."""
        block = bisect_right(self.block_starts, first) - 1
        stop = self.block_starts[block + 1]
        if first + count <= stop:
            item = self._first_item[block] + first - self.block_starts[block]
            return self._map(self._shard_of[block])[item : item + count]
        return np.concatenate([self.tokens_at(first, stop - first), self.tokens_at(stop, first + count - stop)])

    def block_tokens(self, block: int) -> np.ndarray:
        """All tokens of a block, read from the tar; blocks one after the other are read ahead by the system."""
        with self._open_shard(self._shard_of[block]) as file:
            file.seek(self._first_item[block] * self.dtype.itemsize)
            return np.fromfile(file, dtype=self.dtype, count=self.block_starts[block + 1] - self.block_starts[block])

    def documents_between(self, first: int, stop: int) -> list[DocumentSpan]:
        """The documents that own tokens first, ..., stop - 1, in order."""
        found: list[DocumentSpan] = []
        block = bisect_right(self.block_starts, first) - 1
        while block < self.blocks and self.block_starts[block] < stop:
            spans, starts = self._documents(block)
            found.extend(spans[max(bisect_right(starts, first) - 1, 0) : bisect_right(starts, stop - 1)])
            block += 1
        return found

    def find_documents(self, ids: Collection[str]) -> dict[str, list[DocumentSpan]]:
        """Where the documents of these ids lie; several spans where an id comes again, none where it never does.

        Reads the documents.json of every block but those of shards that are left out. Raises ShardError for one that is
        not readable.
        """
        found: dict[str, list[DocumentSpan]] = {one: [] for one in ids}
        # A search in bytes finds the blocks, which is faster than parsing all of them.
        keys = {json.dumps(one, ensure_ascii=False).encode("utf-8") for one in found}
        for block, (first, stop) in enumerate(pairwise(self.block_starts)):
            if self.is_lost_block(block):
                continue
            table = self._documents_table(block)
            few = len(keys) < MANY_IDS
            there = any(key in table for key in keys) if few else not keys.isdisjoint(_ID.findall(table))
            # A table that lost some of its ids is read too, which raises.
            if there or table.count(b'"id":') != self._samples[block]["documents"]:
                for span in self.documents_between(first, stop):
                    if span.id in found:
                        found[span.id].append(span)
        return found

    def verify(self) -> None:
        """Read everything and compare with the index. Raises DamagedShardError naming the first tar that differs."""
        for shard in self.index["shards"]:
            if (wrong := self.place.examine(shard, "hashes")) is not None:
                raise DamagedShardError(wrong)
        for block in range(self.blocks):
            self.check_documents(block, int(np.count_nonzero(self.block_tokens(block) == self.bos_id)))

    def check_documents(self, block: int, found: int) -> None:
        """Raise DamagedShardError, naming the tar, unless so many documents begin in the block."""
        stated = self._samples[block]["documents"]
        if found != stated:
            name = self.index["shards"][self._shard_of[block]]["name"]
            raise DamagedShardError(
                f"{self.folder}/{name}: {found} documents begin in the tokens of sample"
                f" {self._samples[block]['key']}, {INDEX_NAME} says {stated}: its contents changed after it was written"
            )

    def _map_shard(self, number: int) -> np.ndarray:
        with self._open_shard(number) as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Windows are wanted in random order: what the system would read ahead (up to megabytes for 2 KB) is not.
        mapped.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapped, dtype=self.dtype, count=len(mapped) // self.dtype.itemsize)

    def _open_shard(self, number: int) -> BinaryIO:
        if number in self.skipped:
            raise DamagedShardError(f"the shard is left out: {self.skipped[number]}")
        file, fetched = self.place.open(self.index["shards"][number])
        if fetched:
            # For a tar that came another may have gone from the disk, and a map would hold on to its bytes.
            self._map.cache_clear()
        return file

    def _documents_table(self, block: int) -> bytes:
        sample = self._samples[block]
        with self._open_shard(self._shard_of[block]) as file:
            file.seek(sample["documents_offset"])
            return file.read(sample["documents_bytes"])

    def _read_documents(self, block: int) -> tuple[list[DocumentSpan], list[int]]:
        sample, start = self._samples[block], self.block_starts[block]
        raw = self._documents_table(block)
        try:
            entries = json.loads(raw)["documents"]
            spans = [
                DocumentSpan(e["id"], e["source"], start + e["first_token"], e["tokens"], e["characters"])
                for e in entries
            ]
        except (ValueError, KeyError, TypeError) as error:
            name = self.index["shards"][self._shard_of[block]]["name"]
            raise DamagedShardError(
                f"{self.folder}/{name}: the documents of sample {sample['key']} are not readable: {error}"
            ) from error
        return spans, [span.first_token for span in spans]


def _content_hash(index: Mapping[str, Any]) -> str:
    shards = [(shard["sha256"], shard["tokens"], shard["documents"]) for shard in index["shards"]]
    identity = json.dumps([VERSION, index["tokenizer"]["sha256"], index["dtype"], shards])
    return hashlib.sha256(identity.encode("ascii")).hexdigest()


_SAMPLE_FIELDS = ("tokens", "tokens_offset", "documents", "documents_offset", "documents_bytes")


def check_tokenizer(path: str, index: Mapping[str, Any], tokenizer_sha256: str) -> None:
    """Raise ShardError unless the shards of the index at `path` were written with this tokenizer."""
    found = index["tokenizer"]["sha256"]
    if found != tokenizer_sha256:
        raise ShardError(
            f"{path}: tokenizer.sha256 is {found[:12]}..., the tokenizer here is {tokenizer_sha256[:12]}...:"
            " shards are read only with the tokenizer that wrote them; prepare them again or name that tokenizer"
        )


def _check_index(path: str, index: Any) -> None:
    """Raise ShardError unless `index` is a whole index of this version."""
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        found = index.get("format") if isinstance(index, dict) else type(index).__name__
        raise ShardError(f"{path}: format is {found!r}, not {FORMAT!r}: not an index of token shards")
    if index.get("version") != VERSION:
        raise ShardError(f"{path}: version is {index.get('version')!r}, this megadec reads version {VERSION}")
    try:
        _check_values(path, index, _DTYPES.get(index["dtype"]))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ShardError(f"{path} is not whole: {type(error).__name__} {error} where a field is expected") from error


def _check_values(path: str, index: Mapping[str, Any], dtype: np.dtype[Any] | None) -> None:
    for name in ("sha256", "vocabulary_size", "bos_id", "eos_id"):
        index["tokenizer"][name]
    if dtype is None:
        raise ShardError(f"{path}: dtype is {index['dtype']!r}, known are {', '.join(_DTYPES)}")
    for name in ("tokens", "documents"):
        total = sum(shard[name] for shard in index["shards"])
        if index[name] != total or total < 1:
            raise ShardError(f"{path}: {name} is {index[name]}, the shards hold {total}; they must agree and not be 0")
    for shard in index["shards"]:
        place = f"{path}: {shard['name']}"
        values = np.array([[sample[name] for name in _SAMPLE_FIELDS] for sample in shard["samples"]], dtype=np.int64)
        tokens, tokens_offset, documents, documents_offset, documents_bytes = values.T
        if tokens.sum() != shard["tokens"] or documents.sum() != shard["documents"]:
            raise ShardError(f"{place}: its samples do not add up to its tokens and documents")
        ends = np.maximum(tokens_offset + tokens * dtype.itemsize, documents_offset + documents_bytes)
        if (ends > shard["bytes"]).any() or (values < 0).any() or (tokens_offset % dtype.itemsize).any():
            raise ShardError(f"{place}: a sample's offsets do not lie inside its {shard['bytes']} bytes")
