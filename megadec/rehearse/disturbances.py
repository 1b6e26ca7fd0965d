"""What a rehearsal may do to the starts of a run, and what it does: all chosen by a seed before the first start.

Moments are shares of what a step, a save or an evaluation takes, so two rehearsals with one seed do the same things in
the same order, and hit different instructions all the same.
"""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from megadec.common.errors import ConfigError, check_range

Kind = Literal[
    "kill", "stop", "cut shard", "flipped byte", "full disk", "full disk for a while", "full disk between saves",
    "moved shards", "named resume", "second start",
]  # fmt: skip
Moment = Literal["before", "start", "step", "save", "evaluation"]
LAUNCHER, ALL_RANKS = -1, -2
# So many steps at most a start makes before it is disturbed, with a save every second and an evaluation every third.
STEPS_A_START = 6
SAVE_EVERY, EVALUATE_EVERY = 2, 3
SHARE_AT_START = 0.1


class KindOf(NamedTuple):
    """words: for the table. groups: who may be the victim beside single ranks. options: of the start to which it
    happens. says: what the run must say then."""

    words: str
    groups: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    says: str = ""


DAMAGE: tuple[Kind, ...] = ("cut shard", "flipped byte")
FULL_DISK: tuple[Kind, ...] = ("full disk", "full disk for a while", "full disk between saves")
# What ends with SIGTERM to a rank, which is to save.
SAVED: tuple[Kind, ...] = ("stop", *FULL_DISK[1:], "moved shards", "named resume", "second start")
RETRY, REFUSED = "--checkpoint.retry_pause_seconds=0.2", "cannot write"
PATIENT = (RETRY, "--checkpoint.retries=100000")
KINDS: dict[Kind | None, KindOf] = {
    "kill": KindOf("kill -9 of {victim}", (LAUNCHER, ALL_RANKS)),
    "stop": KindOf("SIGTERM to {victim}", (LAUNCHER,)),
    "cut shard": KindOf("a shard was cut", (ALL_RANKS,)),
    "flipped byte": KindOf("a byte of a shard was flipped", (ALL_RANKS,), ("--data.verify=hashes",)),
    "full disk": KindOf("the disk refused {victim}", (), (RETRY, "--checkpoint.retries=1"), REFUSED),
    "full disk for a while": KindOf("the disk refused {victim} for a while", (ALL_RANKS,), PATIENT, REFUSED),
    "full disk between saves": KindOf(
        "the disk was full between saves",
        (),
        (*PATIENT, "--metrics.tensorboard=true"),
        REFUSED,
    ),
    "moved shards": KindOf("the shards lay elsewhere; SIGTERM to {victim}"),
    "named resume": KindOf("went on from a named checkpoint; SIGTERM to {victim}"),
    "second start": KindOf("a second start; SIGTERM to {victim}", (), (), "belongs to a run that trains now"),
    None: KindOf("nothing; to the end"),
}


@dataclass(frozen=True)
class RehearsalOptions:
    """ranks: of every start. rank_numbers: draw each start's from these instead. other_deepspeed: each start draws its
    DeepSpeed file from these and that of --deepspeed.

    kills: with signal 9. share_in_saves: of the kills, while a checkpoint is being written. share_in_evaluations: of
    the kills, in an evaluation. stops: SIGTERM. damaged_shards: starts with a shard that was cut or has a flipped byte.
    full_disks: saves, and metrics between them, that the disk refuses. moves: starts whose shards lie elsewhere.
    requeues: commands that name the checkpoint to go on from, each given twice. second_starts: starts in a folder where
    the run trains already. seed: of all choices. steps: of the run; by default as many as the
    disturbances can use up. sequence_length: of the scaled run. own_model: train the run's own model, not a small one
    of its kind.

    tolerance: largest relative difference of a loss to the undisturbed run; by default 1e-5 in fp32 and 1e-2 in bf16.
    patience_seconds: so long anything may take. folder: for the runs and their output (default: a temporary one, which
    goes when all is well). output: where the report goes as JSON.
    """

    ranks: int = 2
    rank_numbers: tuple[int, ...] = ()
    other_deepspeed: tuple[Path, ...] = ()
    kills: int = 10
    share_in_saves: float = 0.4
    share_in_evaluations: float = 0.2
    stops: int = 2
    damaged_shards: int = 2
    full_disks: int = 3
    moves: int = 1
    requeues: int = 1
    second_starts: int = 1
    seed: int = 0
    steps: int | None = None
    sequence_length: int = 64
    own_model: bool = False
    tolerance: float | None = None
    patience_seconds: float = 900.0
    folder: Path | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        counts = ("kills", "stops", "damaged_shards", "full_disks", "moves", "requeues", "second_starts")
        check_range(self, "rehearsal.", *counts, "tolerance", "share_in_saves", "share_in_evaluations", least=0)
        check_range(self, "rehearsal.", "sequence_length", least=2)
        check_range(self, "rehearsal.", "patience_seconds", above=0)
        if min(self.all_ranks) < 1:
            raise ConfigError(f"rehearse: {min(self.all_ranks)} ranks; at least 1 trains")
        if self.share_in_saves + self.share_in_evaluations > 1:
            raise ConfigError(
                f"rehearsal.share_in_saves={self.share_in_saves} and rehearsal.share_in_evaluations="
                f"{self.share_in_evaluations}: shares of all kills are together at most 1"
            )
        if self.run_steps < self.steps_needed:
            raise ConfigError(
                f"rehearsal.steps={self.steps} is less than the {self.steps_needed} that {self.disturbances}"
                f" disturbances can use up ({STEPS_A_START} each): name more steps, or fewer disturbances"
            )

    @property
    def all_ranks(self) -> tuple[int, ...]:
        """Every number of ranks that a start may have."""
        return self.rank_numbers or (self.ranks,)

    @property
    def disturbances(self) -> int:
        """How many rows the rehearsal has, without the last one, which ends the run."""
        once = self.kills + self.stops + self.damaged_shards + self.full_disks + self.moves + self.second_starts
        return once + 2 * self.requeues

    @property
    def steps_needed(self) -> int:
        """After so many steps the run is surely not done before the last disturbance."""
        return STEPS_A_START * (self.disturbances + 1)

    @property
    def run_steps(self) -> int:
        """How many steps the run has."""
        return self.steps_needed if self.steps is None else self.steps


@dataclass(frozen=True)
class Disturbance:
    """One start of the run and what is done to it.

    kind: None for the last start, which nothing happens to. victim: a rank's number, LAUNCHER or ALL_RANKS. after: so
    many steps, saves or evaluations of this start come first. fraction: how far into the step, save or evaluation it
    comes. ranks, deepspeed: of this start; the latter counts the files from 0, which is that of --deepspeed.
    """

    kind: Kind | None
    moment: Moment
    victim: int
    after: int
    fraction: float
    ranks: int
    deepspeed: int = 0

    @property
    def words(self) -> str:
        """What is done, for the table."""
        victim = {LAUNCHER: "the launcher", ALL_RANKS: "all ranks"}.get(self.victim, f"rank {self.victim}")
        return KINDS[self.kind].words.format(victim=victim)


def choose(options: RehearsalOptions, *, evaluates: bool) -> list[Disturbance]:
    """Every disturbance of a rehearsal, in order. evaluates: the run has held-out sets; if not, no kill waits for them.

    Pure: the same options give the same list.
    """
    chance = random.Random(options.seed)
    evaluation: Moment = "evaluation" if evaluates else "step"
    in_saves = math.ceil(options.kills * options.share_in_saves)
    in_evaluations = min(round(options.kills * options.share_in_evaluations), options.kills - in_saves)
    at_start = min(round(options.kills * SHARE_AT_START), options.kills - in_saves - in_evaluations)
    stops: tuple[Moment, ...] = ("step", "save", evaluation)
    kinds: list[tuple[Kind, Moment]] = [("kill", "save")] * in_saves
    kinds += [("kill", evaluation)] * in_evaluations
    kinds += [("kill", "start")] * at_start
    kinds += [("kill", "step")] * (options.kills - len(kinds))
    kinds += [("stop", stops[number % 3]) for number in range(options.stops)]
    kinds += [(DAMAGE[number % 2], "before") for number in range(options.damaged_shards)]
    disks: tuple[Moment, ...] = ("save", "save", "step")
    kinds += [(FULL_DISK[number % 3], disks[number % 3]) for number in range(options.full_disks)]
    kinds += [("moved shards", "step")] * options.moves
    kinds += [("second start", "step")] * options.second_starts
    kinds += [("named resume", "step")] * options.requeues
    chance.shuffle(kinds)
    drawn = [_draw(kind, moment, options, chance) for kind, moment in kinds]
    return [one for one in drawn for _ in range(2 if one.kind == "named resume" else 1)]


def _draw(kind: Kind, moment: Moment, options: RehearsalOptions, chance: random.Random) -> Disturbance:
    ranks = chance.choice(options.all_ranks)
    groups = [group for group in KINDS[kind].groups if moment != "start" or group != LAUNCHER]
    victims = [*range(ranks), *range(ranks), *groups]
    # A save comes every second step, an evaluation every third: more of them than these would take too many steps.
    after = {"step": chance.randint(1, 4), "save": chance.randint(0, 1)}.get(moment, 0)
    victim, fraction = chance.choice(victims), chance.random()
    return Disturbance(kind, moment, victim, after, fraction, ranks, chance.randrange(1 + len(options.other_deepspeed)))
