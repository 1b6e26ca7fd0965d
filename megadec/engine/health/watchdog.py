"""What a rank is doing, and a report when it gets no further: who is late, at which step, in which line.

In come the phases that the loop and the step name (`set_phase`); out come, after `guard.stall_seconds` without a new
phase or collective, a line in the log and `runs/NAME/stalls/step_N_rank_R.txt` with the Python stacks of this rank and
of those that it waits for. A thread of every rank publishes its place through the store that made the process group,
over a connection of its own; it answers with its stack when another rank asks. A rank is late when it has entered fewer
phases, or in the same phase fewer collectives, than the rank that is furthest.

The thread needs Python's lock, so a rank that hangs inside a library which holds it cannot speak; the others still name
it. A report ends nothing: a slow file system looks like a lost rank, and PEERS_TIMEOUT ends what hangs.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.distributed import distributed_c10d

from megadec.common.errors import StorageError
from megadec.common.files import whole_file
from megadec.common.log import logger

FOLDER = "stalls"
LONGEST_TICK_SECONDS = 5.0
JOIN_SECONDS = 10.0
NAMED_RANKS = 8
SHOWN_FRAMES = 3

SetPhase = Callable[[str, int], None]

log = logger(__name__)


@dataclass(frozen=True)
class Heartbeat:
    """Where a rank is. `phases`, `collectives`: entered so far; `seconds`: since one of them was new."""

    rank: int
    step: int
    phase: str
    phases: int
    collectives: int
    seconds: float

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
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._store: Any = None
        self._answered = 0
        self._moved = ((0, _collectives()), time.monotonic())

    def set_phase(self, phase: str, step: int) -> None:
        """This rank begins `phase` of step `step`."""
        self._place = (phase, step, self._place[2] + 1)

    def __enter__(self) -> Watchdog:
        if self._limit > 0:
            if self._world_size > 1:
                # A connection of its own: a collective that waits in the common one would hold the thread up too.
                store: Any = distributed_c10d._get_default_store()
                self._store = distributed_c10d.PrefixStore("stall", store.clone())
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._limit > 0:
            # Not for ever: a store whose process hangs does not answer, and the thread dies with this process.
            self._thread.join(JOIN_SECONDS)

    def _watch(self) -> None:
        patience, stalled = self._limit, 0.0
        while not self._ended.wait(self._tick):
            beat = self._beat()
            if beat.seconds < stalled:
                log.warning("rank %d: went on after %.0f s", self._rank, stalled)
                patience = self._limit
            stalled = beat.seconds if beat.seconds >= self._limit else 0.0
            self._publish(beat)
            if beat.seconds >= patience:
                try:
                    self._report(beat)
                except StorageError as error:
                    log.warning("%s gets no further; its report: %s", beat, error)
                patience *= 2

    def _beat(self) -> Heartbeat:
        (phase, step, phases), now = self._place, time.monotonic()
        progress = phases, _collectives()
        if progress != self._moved[0]:
            self._moved = (progress, now)
        return Heartbeat(self._rank, step, phase, *progress, round(now - self._moved[1], 2))

    def _publish(self, beat: Heartbeat) -> None:
        """Tell the others where this rank is, and its stack when one of them has asked since the last time."""
        if self._store is None:
            return
        try:
            self._store.set(f"beat/{self._rank}", json.dumps(asdict(beat)))
            asked = self._store.add("asked", 0)
            if asked > self._answered:
                self._store.set(f"stack/{self._rank}", json.dumps([asked, stack_of(self._watched)]))
                self._answered = asked
        except RuntimeError as error:  # rank 0, which holds the store, has gone: its own message says why
            log.debug("the store does not answer: %s", error)
            self._store = None

    def _report(self, own: Heartbeat) -> None:
        behind, stacks = [], {}
        try:
            behind = late({own.rank: own, **self._beats()})
            stacks = self._stacks([beat.rank for beat in behind if beat.rank != self._rank][:NAMED_RANKS])
        except RuntimeError as error:
            log.warning("rank %d: what the other ranks do cannot be asked: %s", self._rank, error)
        words = self._words(own, behind)
        path = self._folder / f"step_{own.step:08d}_rank_{self._rank:04d}.txt"
        with whole_file(path, "w") as file:
            file.write(f"{words}\n")
            for rank, stack in stacks.items():
                file.write(f"\nrank {rank}, which is late, is here:\n{stack}")
            file.write(f"\nrank {self._rank}, which reports, is here:\n{stack_of(self._watched)}\nall its threads:\n")
            file.flush()
            faulthandler.dump_traceback(file)
        if self._rank in (0, *(beat.rank for beat in behind)):
            named = "".join(f"\nrank {rank} is here:\n{_innermost(stack)}" for rank, stack in stacks.items())
            log.warning("%s; stacks are in %s%s", words, path, named)

    def _words(self, own: Heartbeat, behind: list[Heartbeat]) -> str:
        words = f"{own} gets no further"
        others = [str(beat) for beat in behind if beat.rank != self._rank]
        if len(others) < len(behind):
            words += "; it is late, and others wait for it"
        if others:
            more = f" and {len(others) - NAMED_RANKS} more" if len(others) > NAMED_RANKS else ""
            words += f"; late: {', '.join(others[:NAMED_RANKS])}{more}"
        if not behind and self._world_size > 1:
            words += "; no rank is late: all are at one place, so look at the network, the devices, or the disk"
        return words

    def _beats(self) -> dict[int, Heartbeat]:
        """Where the other ranks are, as far as they have said."""
        others = set(range(self._world_size)) - {self._rank} if self._store is not None else ()
        said = {rank: self._store.get(f"beat/{rank}") for rank in others if self._store.check([f"beat/{rank}"])}
        return {rank: Heartbeat(**json.loads(beat)) for rank, beat in said.items()}

    def _stacks(self, ranks: list[int]) -> dict[int, str]:
        """The stacks of these ranks, as far as they answer within some ticks."""
        found: dict[int, str] = {}
        if self._store is None or not ranks:
            return found
        question = self._store.add("asked", 1)
        # The other's tick may be longer than ours only if its configuration is another.
        deadline = time.monotonic() + 4 * self._tick
        while len(found) < len(ranks) and time.monotonic() < deadline:
            self._publish(self._beat())  # they may be asking too
            for rank in ranks:
                if self._store is not None and self._store.check([f"stack/{rank}"]):
                    answered, stack = json.loads(self._store.get(f"stack/{rank}"))
                    if answered >= question:
                        found[rank] = stack
            self._ended.wait(self._tick / 4)
        return found


def stack_of(thread: int) -> str:
    """The Python stack of a thread of this process, the innermost call last."""
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame is not None else "the thread has ended\n"


def _innermost(stack: str) -> str:
    """The last frames of a stack as text, each of which has two lines or more."""
    return "  File" + "  File".join(stack.split("  File")[-SHOWN_FRAMES:]).rstrip()


def _collectives() -> int:
    """How many collectives this rank has entered, over all its groups."""
    if not torch.distributed.is_initialized():
        return 0
    groups: list[Any] = list(distributed_c10d._world.pg_map)
    return sum(group._get_sequence_number_for_group() for group in groups)
