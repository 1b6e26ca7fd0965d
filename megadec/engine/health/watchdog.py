"""What a rank is doing, and a report when it gets no further: who is late, at which step, in which line.

In come the phases that the loop and the step name (`set_phase`); out come, after `guard.stall_seconds` without a new
phase or collective, a line in the log and `runs/NAME/stalls/step_N_rank_R.txt` with the Python stacks of this rank and
of those that it waits for. A thread of every rank publishes where it is, and its stack once it has not moved for half
of that time, through the store that made the process group, over a connection of its own. A rank is late when it has
entered fewer phases, or in the same phase fewer collectives, than the rank that is furthest.

The thread needs Python's lock, so a rank that hangs inside a library which holds it cannot speak; the others still name
it, with the place that it published last, which it does in every phase. A report ends nothing: a slow file system looks
like a lost rank, and PEERS_TIMEOUT ends what hangs. When the transport says that a peer has gone, `naming_lost_ranks`
finds out which one: the rank whose heartbeat has stopped.
"""

import faulthandler
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch.distributed import distributed_c10d

from megadec.common.errors import StorageError
from megadec.common.files import whole_file
from megadec.common.log import logger
from megadec.engine.ranks import LostRankError, lost_ranks

FOLDER = "stalls"
LONGEST_TICK_SECONDS = 2.0
# Beyond a tick: a heartbeat that is not new after it has stopped.
HEARTBEAT_MARGIN_SECONDS = 1.5
JOIN_SECONDS = 10.0
NAMED_RANKS = 8
SHOWN_FRAMES = 3

SetPhase = Callable[[str, int], None]

log = logger(__name__)


@dataclass(frozen=True)
class Heartbeat:
    """Where a rank is. `phases`, `collectives`: entered so far; `seconds`: since one of them was new; `stack`: of its
    training thread, the innermost call last, empty while it moves; `sent`: when it said so, by its own clock.
    """

    rank: int
    step: int
    phase: str
    phases: int
    collectives: int
    seconds: float
    stack: str = ""
    sent: float = 0.0

    @property
    def progress(self) -> tuple[int, int]:
        """What grows as the rank gets on, alike on every rank."""
        return self.phases, self.collectives

    def __str__(self) -> str:
        return f"rank {self.rank} (step {self.step}, {self.phase}, for {self.seconds:.0f} s)"


def late(beats: Mapping[int, Heartbeat]) -> list[Heartbeat]:
    """The ranks that are behind the one that is furthest."""
    furthest = max(beat.progress for beat in beats.values())
    return [beats[rank] for rank in sorted(beats) if beats[rank].progress < furthest]


class Watchdog:
    """Context manager around training; `set_phase` names the phase. seconds 0: watches nothing. Not collective."""

    def __init__(self, seconds: float, folder: Path, rank: int, world_size: int) -> None:
        self._limit, self._folder = seconds, folder / FOLDER
        self._rank, self._world_size = rank, world_size
        self._tick = min(LONGEST_TICK_SECONDS, max(seconds / 4, 0.05))
        self._place = ("start", 0, 0)
        self._watched = threading.get_ident()
        self._news, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._store: Any = None
        self._moved = ((0, _collectives()), time.monotonic())

    def set_phase(self, phase: str, step: int) -> None:
        """This rank begins `phase` of step `step`."""
        self._place = (phase, step, self._place[2] + 1)
        self._news.set()  # for the thread: a message here would hold training up

    def __enter__(self) -> Self:
        if self._limit > 0:
            if self._world_size > 1:
                # A connection of its own: a collective that waits in the common one would hold the thread up too.
                store: Any = distributed_c10d._get_default_store()
                self._store = distributed_c10d.PrefixStore("stall", store.clone())
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._news.set()
        if self._limit > 0:
            # Not for ever: a store whose process hangs does not answer, and the thread dies with this process.
            self._thread.join(JOIN_SECONDS)

    @contextmanager
    def naming_lost_ranks(self) -> Iterator[None]:
        """Turn the transport's complaint about a lost peer into a LostRankError that names the rank and its place."""
        try:
            with lost_ranks("training"):
                yield
        except LostRankError as error:
            lost = self._lost()
            if not lost:
                raise
            words = f"{', '.join(lost.values())}: killed, out of reach, or ended by an error of its own"
            survivors = (rank for rank in range(self._world_size) if rank not in lost)
            if self._rank == next(survivors) != 0:
                log.error(words)  # rank 0 speaks for all, and is not there
            raise LostRankError(words) from error

    def _lost(self) -> dict[int, str]:
        """The ranks whose heartbeat has stopped, and where it was; none where nobody can know. Waits for a tick."""
        if self._store is None:
            return {}
        try:
            self._store.set(f"alive {self._rank}", "")  # and will end as soon as it has said so
            before = self._published(range(self._world_size))
        except RuntimeError:
            return {0: "rank 0, which all others meet at, is lost"}
        time.sleep(self._tick + HEARTBEAT_MARGIN_SECONDS)
        try:
            after = self._published(before)
            silent = [
                beat
                for rank, beat in after.items()
                if beat.sent == before[rank].sent and not self._store.check([f"alive {rank}"])
            ]
        except RuntimeError:  # rank 0 was there a moment ago: it has said who is lost, and ended
            return {}
        return {beat.rank: f"rank {beat.rank} is lost, last at step {beat.step} ({beat.phase})" for beat in silent}

    def _published(self, ranks: Iterable[int]) -> dict[int, Heartbeat]:
        """What these ranks have said last, as it is now if they have not moved since: one that is frozen says no more.

        Raises RuntimeError where rank 0, which holds the store, has gone.
        """
        said = [self._store.get(f"{rank}") for rank in ranks if self._store.check([f"{rank}"])]
        beats, now = [Heartbeat(**json.loads(text)) for text in said], time.time()
        return {one.rank: replace(one, seconds=one.seconds + max(0.0, now - one.sent)) for one in beats}

    def _watch(self) -> None:
        patience, stalled = self._limit, 0.0
        while True:
            self._news.wait(self._tick)
            self._news.clear()
            if self._ended:
                return
            beat = self._beat()
            if beat.seconds < stalled:
                log.warning("rank %d: went on after %.0f s", self._rank, stalled)
                patience = self._limit
            stalled = beat.seconds if beat.seconds >= self._limit else 0.0
            others = self._exchange(beat)
            if beat.seconds >= patience:
                try:
                    self._report(beat, late({**others, self._rank: beat}))
                except StorageError as error:
                    log.warning("%s gets no further; its report: %s", beat, error)
                patience *= 2

    def _beat(self) -> Heartbeat:
        (phase, step, phases), now = self._place, time.monotonic()
        progress = phases, _collectives()
        if progress != self._moved[0]:
            self._moved = (progress, now)
        seconds = round(now - self._moved[1], 2)
        stack = _stack_of(self._watched) if seconds >= self._limit / 2 else ""
        return Heartbeat(self._rank, step, phase, *progress, seconds, stack, time.time())

    def _exchange(self, beat: Heartbeat) -> dict[int, Heartbeat]:
        """Tell the others where this rank is; where they are, as far as they have said and this rank does not move."""
        if self._store is None:
            return {}
        try:
            self._store.set(f"{self._rank}", json.dumps(asdict(beat)))
            return self._published(range(self._world_size) if beat.seconds >= self._limit else ())
        except RuntimeError as error:  # `naming_lost_ranks` says that rank 0 has gone
            log.debug("the store does not answer: %s", error)
            return {}

    def _report(self, own: Heartbeat, behind: list[Heartbeat]) -> None:
        others = [beat for beat in behind if beat.rank != own.rank]
        words = f"{own} gets no further"
        if len(others) < len(behind):
            words += "; it is late, and others wait for it"
        if others:
            more = f" and {len(others) - NAMED_RANKS} more" if len(others) > NAMED_RANKS else ""
            words += f"; late: {', '.join(map(str, others[:NAMED_RANKS]))}{more}"
        if not behind and self._world_size > 1:
            words += "; no rank is late: all are at one place, so look at the network, the devices, or the disk"
        path = self._folder / f"step_{own.step:08d}_rank_{self._rank:04d}.txt"
        stacks = [(beat.rank, beat.stack) for beat in others[:NAMED_RANKS] if beat.stack]
        with whole_file(path, "w") as file:
            file.write(f"{words}\n")
            for rank, stack in stacks:
                file.write(f"\nrank {rank}, which is late, is here:\n{stack}")
            file.write(f"\nrank {self._rank}, which reports, is here:\n{own.stack}\nall its threads:\n")
            file.flush()
            faulthandler.dump_traceback(file)
        if self._rank == 0 or own in behind:
            # The last frames are enough here; each has two lines or more.
            innermost = [(rank, stack.rstrip().split("  File")[-SHOWN_FRAMES:]) for rank, stack in stacks]
            named = "".join(f"\nrank {rank} is here:\n  File{'  File'.join(frames)}" for rank, frames in innermost)
            log.warning("%s; stacks are in %s%s", words, path, named)


def _stack_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame is not None else "the thread has ended\n"


def _collectives() -> int:
    """How many collectives this rank has entered, over all its groups."""
    if not torch.distributed.is_initialized():
        return 0
    groups: list[Any] = list(distributed_c10d._world.pg_map)
    return sum(group._get_sequence_number_for_group() for group in groups)
