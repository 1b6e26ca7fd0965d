"""The plan of windows: which tokens of a data set each sequence of a batch holds.

A window is pieces of (first token, predictions): p predictions read the p + 1 tokens from `first` on.

- `cut`: the documents joined and cut every sequence_length; the last window may be short.
- `best_fit`: whole documents packed by best fit, longest first (Ding et al., "Fewer Truncations Improve Language
  Modeling", ICML 2024), for some padding; only documents longer than a sequence are cut. Cached in a file.
"""

import hashlib
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from megadec.common.errors import ConfigError, ShardError, StorageError
from megadec.common.files import cache_folder, whole_file
from megadec.common.log import logger
from megadec.data.dataset import DataSet, DocumentSpan
from megadec.data.packing import Packed, pack

Packing = Literal["cut", "best_fit"]
PLAN_VERSION = 1
_log = logger(__name__)


class WindowPlan(ABC):
    """`windows` of at most `sequence_length` predictions each over `data`."""

    windows: int
    lost: Collection[int] = frozenset()
    """The windows that hold tokens of a shard that is left out."""

    def __init__(self, data: DataSet, sequence_length: int) -> None:
        self.data = data
        self.sequence_length = sequence_length

    @abstractmethod
    def pieces(self, window: int) -> list[tuple[int, int]]:
        """(first token, predictions) of each piece of a window; the predictions add up to at most sequence_length."""

    @abstractmethod
    def windows_with(self, span: DocumentSpan) -> list[int]:
        """The windows that hold a part of a document, ascending: those whose inputs are among its tokens."""

    @abstractmethod
    def window_tokens(self) -> np.ndarray:
        """int64 [windows]: the predictions of each window, none where it is lost."""

    @abstractmethod
    def holds(self, seen: np.ndarray, first: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """bool [documents]: of which documents a window of `seen` (bool [windows]) holds a part; first and tokens are
        what `document_starts` gives.
        """

    def documents_of(self, window: int) -> list[DocumentSpan]:
        """The documents that a window holds, in the order of the sequence, each once."""
        pieces = self.pieces(window)
        spans = (span for first, count in pieces for span in self.data.documents_between(first, first + count))
        return list(dict.fromkeys(spans))


def plan_windows(data: DataSet, sequence_length: int, packing: str) -> WindowPlan:
    """The plan named `packing`. Raises ConfigError for an unknown name or a sequence shorter than 1."""
    if sequence_length < 1:
        raise ConfigError(f"sequence_length={sequence_length} is not at least 1")
    if packing not in PLANS:
        raise ConfigError(f"packing={packing!r} is unknown; known are {', '.join(PLANS)}")
    return PLANS[packing](data, sequence_length)


def default_cache_folder() -> Path:
    """Where plans of best_fit are kept."""
    return cache_folder("windows")


class CutPlan(WindowPlan):
    """Window w holds the predictions of tokens w * sequence_length + 1, ..., (w + 1) * sequence_length."""

    def __init__(self, data: DataSet, sequence_length: int) -> None:
        super().__init__(data, sequence_length)
        self._predictions = data.tokens - 1
        self.windows = -(-self._predictions // sequence_length)
        # Window w reads the tokens w * sequence_length, ..., (w + 1) * sequence_length.
        self.lost = {
            window
            for start, stop in data.lost_ranges
            for window in range(max(-(-start // sequence_length) - 1, 0), (stop - 1) // sequence_length + 1)
            if window < self.windows
        }

    def pieces(self, window: int) -> list[tuple[int, int]]:
        first = window * self.sequence_length
        if not 0 <= first < self._predictions:
            raise IndexError(f"window {window} of {self.windows}")
        return [(first, min(self.sequence_length, self._predictions - first))]

    def window_tokens(self) -> np.ndarray:
        found = np.full(self.windows, self.sequence_length, dtype=np.int64)
        found[-1:] = self._predictions - (self.windows - 1) * self.sequence_length
        found[list(self.lost)] = 0
        return found

    def holds(self, seen: np.ndarray, first: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        seen = seen.copy()
        seen[list(self.lost)] = False
        last = np.minimum(first + tokens, self.data.tokens - 1) - 1
        before = np.concatenate([[0], np.cumsum(seen)])
        found: np.ndarray = before[last // self.sequence_length + 1] > before[first // self.sequence_length]
        return found

    def windows_with(self, span: DocumentSpan) -> list[int]:
        # The last token of a set is nobody's input.
        last = min(span.first_token + span.tokens, self.data.tokens - 1) - 1
        return list(range(span.first_token // self.sequence_length, last // self.sequence_length + 1))


class BestFitPlan(WindowPlan):
    """Whole documents in sequences, of those that are there, so no window is lost. A prediction across two documents is
    in no sequence, so no place is lost between them."""

    def __init__(self, data: DataSet, sequence_length: int) -> None:
        super().__init__(data, sequence_length)
        self._packed = _cached_pack(data, sequence_length)
        self.windows = len(self._packed.sequence_ends) - 1

    def pieces(self, window: int) -> list[tuple[int, int]]:
        if not 0 <= window < self.windows:
            raise IndexError(f"window {window} of {self.windows}")
        packed = self._packed
        mine = slice(packed.sequence_ends[window], packed.sequence_ends[window + 1])
        return list(zip(packed.first[mine].tolist(), packed.predictions[mine].tolist(), strict=True))

    def window_tokens(self) -> np.ndarray:
        packed = self._packed
        return np.add.reduceat(packed.predictions, packed.sequence_ends[:-1], dtype=np.int64)

    def holds(self, seen: np.ndarray, first: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        packed = self._packed
        pieces = packed.first[np.repeat(seen, np.diff(packed.sequence_ends))]
        found = np.zeros(len(first), dtype=bool)
        found[np.searchsorted(first, pieces, side="right") - 1] = True
        return found

    def windows_with(self, span: DocumentSpan) -> list[int]:
        packed = self._packed
        inside = (packed.first < span.first_token + span.tokens) & (
            packed.first + packed.predictions > span.first_token
        )
        found = np.searchsorted(packed.sequence_ends, np.flatnonzero(inside), side="right") - 1
        return sorted(set(found.tolist()))


PLANS: dict[str, type[CutPlan] | type[BestFitPlan]] = {"cut": CutPlan, "best_fit": BestFitPlan}


def _cached_pack(data: DataSet, sequence_length: int) -> Packed:
    shards = data.index["shards"]
    gone = [shards[number] for number in data.skipped]
    identity = f"{PLAN_VERSION} {data.sha256} {sequence_length}" + "".join(f" -{shard['sha256']}" for shard in gone)
    key = hashlib.sha256(identity.encode()).hexdigest()
    path = default_cache_folder() / f"best_fit-{key[:32]}.npz"
    expected = data.tokens - data.documents - sum(shard["tokens"] - shard["documents"] for shard in gone)
    if path.is_file():
        packed = _read_pack(path, expected)
        if packed is not None:
            return packed
        _log.warning("%s is damaged; packing again", path)
    packed = pack(*document_starts(data), sequence_length)
    if (found := int(packed.predictions.sum())) != expected:
        raise ShardError(f"{data.folder}: its documents hold {found} predictions, the index says {expected}")
    try:
        with whole_file(path) as file:
            np.savez(file, **packed._asdict())
    except StorageError as error:
        _log.warning("the plan of windows is not kept, so each start packs again: %s", error)
    return packed


def _read_pack(path: Path, predictions: int) -> Packed | None:
    """The cached sequences, or None when the file is damaged (a zip checks its own sums)."""
    try:
        # Opened here: numpy leaves a file that is no archive to the garbage collector.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            packed = Packed(**{name: arrays[name] for name in Packed._fields})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = packed.sequence_ends[-1] == len(packed.first) == len(packed.predictions)
    return packed if whole and int(packed.predictions.sum()) == predictions else None


def document_starts(data: DataSet) -> tuple[np.ndarray, np.ndarray]:
    """First token and length (int64 each) of every document that is not left out, found by `<s>`, ascending."""
    first, tokens = [], []
    for block in range(data.blocks):
        if data.is_lost_block(block):
            continue
        starts = np.flatnonzero(data.block_tokens(block) == data.bos_id) + data.block_starts[block]
        data.check_documents(block, len(starts))
        first.append(starts)
        tokens.append(np.diff(starts, append=data.block_starts[block + 1]))  # a document lies in one block
    return np.concatenate(first), np.concatenate(tokens)
