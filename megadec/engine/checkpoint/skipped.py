"""What the weights of a run have not learned from, as its checkpoints keep it: steps, documents and shards.

It answers for any step, and gives a hash by which an export says which of two histories is its own. A start repeats the
whole list of skipped documents where it differs from the one before, which is rare.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

from megadec.data.stages import StagedStream
from megadec.engine.health.guard import GuardState

T = TypeVar("T")


@dataclass(frozen=True)
class RunStart:
    """A run went without these from `first_step` on, counted from 1, up to the next start.

    documents: the ids of `data.skip_documents`, sorted. shards: by data set, over all stages, the sha256 of those that
    were damaged.
    """

    first_step: int
    documents: tuple[str, ...] = ()
    shards: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, stream: StagedStream, step: int) -> Self:
        """A start that goes on after `step`."""
        shards = tuple(tuple(found) for found in stream.skipped_shards())
        return cls(step + 1, tuple(sorted(stream.skip_documents)), shards)

    def shards_of(self, data_set: int) -> tuple[str, ...]:
        """Those of one set; none of a set that came with a later stage."""
        return self.shards[data_set] if data_set < len(self.shards) else ()


def after_start(starts: Sequence[RunStart], start: RunStart) -> tuple[RunStart, ...]:
    """The starts with one more, unless it goes without the same as the last; a start that did no step is dropped."""
    before = tuple(one for one in starts if one.first_step < start.first_step)
    if before and (before[-1].documents, before[-1].shards) == (start.documents, start.shards):
        return before
    return (*before, start)


def from_json(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of numbers, texts and tuples of them, from `asdict` of it as JSON gives it back."""
    return kind(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def starts_of(manifest: Mapping[str, Any]) -> tuple[RunStart, ...]:
    """The starts that a checkpoint names; none in one from before they were recorded."""
    return tuple(from_json(RunStart, one) for one in manifest.get("starts", ()))


@dataclass(frozen=True)
class Skipped:
    """What a checkpoint of `last_step` says of the steps up to there.

    steps: (first, last) of those whose update the guard skipped or took back. Of steps before the first start nobody
    knows what they went without.
    """

    last_step: int
    steps: tuple[tuple[int, int], ...] = ()
    starts: tuple[RunStart, ...] = ()

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """Of a checkpoint."""
        guard = from_json(GuardState, manifest.get("guard", {}))
        return cls(int(manifest["step"]), guard.skipped, starts_of(manifest))

    def no_update(self, step: int) -> bool:
        """Whether the guard skipped the update of a step, or took it back."""
        return any(first <= step <= last for first, last in self.steps)

    def start_of(self, step: int) -> RunStart | None:
        """The start that did a step; None where it is not known."""
        before = [start for start in self.starts if start.first_step <= step <= self.last_step]
        return before[-1] if before else None

    def always_without(self, data_set: int, shard_sha256: str) -> bool:
        """Whether every step up to the last is known to have gone without a shard."""
        known = bool(self.starts) and self.starts[0].first_step == 1
        return known and all(shard_sha256 in start.shards_of(data_set) for start in self.starts)

    def sha256(self, step: int) -> str | None:
        """Of all that is said of the steps up to `step`, the same from any later checkpoint of the same history; None
        for a step after the last."""
        if step > self.last_step:
            return None
        steps = [(first, min(last, step)) for first, last in self.steps if first <= step]
        starts = [asdict(start) for start in self.starts if start.first_step <= step]
        return hashlib.sha256(json.dumps([steps, starts], sort_keys=True).encode("ascii")).hexdigest()
