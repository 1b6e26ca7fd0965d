"""What a checkpoint says that its weights have not learned from, for any step, and whether two say the same."""

import json
from dataclasses import asdict
from typing import Any

from megadec.engine.checkpoint.manifest import Progress
from megadec.engine.checkpoint.skipped import RunStart, Skipped, after_start
from megadec.engine.early_stopping import Best
from megadec.engine.health.guard import GuardState

NOTHING, ONE, TWO = RunStart(1), RunStart(5, ("a",)), RunStart(9, ("a", "b"), (("5ha",), ()))


def manifest(step: int, starts: tuple[RunStart, ...], *steps: tuple[int, int]) -> dict[str, Any]:
    written = {"step": step, "guard": {"skipped": steps}, "starts": [asdict(start) for start in starts]}
    read: dict[str, Any] = json.loads(json.dumps(written))
    return read


def test_a_start_is_kept_when_it_goes_without_others_than_the_one_before() -> None:
    assert after_start((), NOTHING) == (NOTHING,)
    assert after_start((NOTHING,), RunStart(5)) == (NOTHING,)
    assert after_start((NOTHING,), ONE) == (NOTHING, ONE)
    assert after_start((NOTHING, ONE), RunStart(7, ("a",))) == (NOTHING, ONE)


def test_a_start_that_did_no_step_makes_room_for_the_next() -> None:
    assert after_start((NOTHING, ONE), RunStart(5, ("b",))) == (NOTHING, RunStart(5, ("b",)))
    assert after_start((NOTHING, ONE), RunStart(5)) == (NOTHING,)


def test_progress_comes_back_from_a_manifest_as_it_was() -> None:
    guard = GuardState((3.0, 2.5), (0.5,), 1, 3, 0, ((3, 4), (9, 9)))
    progress = Progress(12, 96, 2.5, 8, Best(4, 0.5, 1), guard, (NOTHING, ONE, TWO))
    assert Progress.from_manifest(json.loads(json.dumps(asdict(progress)))) == progress


def test_a_step_belongs_to_the_last_start_before_it_and_one_behind_the_checkpoint_to_none() -> None:
    skipped = Skipped.from_manifest(manifest(12, (NOTHING, ONE, TWO), (3, 4), (10, 10)))
    assert [skipped.start_of(step) for step in (1, 4, 5, 8, 9, 12, 13)] == [NOTHING, NOTHING, ONE, ONE, TWO, TWO, None]
    assert [step for step in range(1, 14) if skipped.no_update(step)] == [3, 4, 10]


def test_of_steps_before_starts_were_recorded_nothing_is_known() -> None:
    skipped = Skipped.from_manifest(manifest(12, (ONE, TWO)))
    assert skipped.start_of(4) is None
    assert Skipped.from_manifest({"step": 12}) == Skipped(12)


def test_a_shard_was_never_read_only_where_every_start_from_the_first_step_on_says_so() -> None:
    without = (("5ha",), ())
    assert Skipped(12, (), (RunStart(1, (), without), RunStart(9, ("a",), without))).always_without(0, "5ha")
    assert not Skipped(12, (), (RunStart(1, (), ((), ())), TWO)).always_without(0, "5ha")
    assert not Skipped(12, (), (TWO,)).always_without(0, "5ha")
    assert not Skipped(12).always_without(0, "5ha")


def test_a_later_checkpoint_gives_the_hash_of_an_earlier_one_of_the_same_history_and_of_no_other() -> None:
    early = Skipped.from_manifest(manifest(8, (NOTHING, ONE), (3, 4), (7, 8)))
    late = Skipped.from_manifest(manifest(12, (NOTHING, ONE, TWO), (3, 4), (7, 10)))
    assert late.sha256(8) == early.sha256(8)
    assert early.sha256(12) is None
    others = [
        manifest(8, (NOTHING, ONE), (3, 4)),
        manifest(8, (NOTHING,), (3, 4), (7, 8)),
        manifest(8, (NOTHING, RunStart(5, ("b",))), (3, 4), (7, 8)),
        manifest(8, (NOTHING, RunStart(6, ("a",))), (3, 4), (7, 8)),
    ]
    assert late.sha256(8) not in {Skipped.from_manifest(one).sha256(8) for one in others}
