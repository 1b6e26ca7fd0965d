"""From a document to the steps, checkpoints, exports and further runs that learned from it, by real runs.

A document that a step read and no update learned from is told apart from one that it learned from.
"""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from megadec.data.dataset import DataSet
from megadec.data.shard_cache import DamagedShardError
from megadec.data.stream import TrainStream
from megadec.export.read.megadec import to_megadec
from megadec.export.read.open_model import open_model
from megadec.lineage.command import main
from tests.support.commands import answer, printed
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

STEPS, ROWS, ROW_TOKENS = 8, 8, 32
REFUSED_STEP, FIRST_STOP = 2, 4
DAMAGED, CUT_BYTES = 1, 1000

Places = dict[str, set[tuple[int, int]]]
"""(step, row) by document."""


@dataclass(frozen=True)
class Left:
    """Runs, trained: `changed` refused an update, and its second start skipped a document and went without a damaged
    shard; `branch` went on from the checkpoint between its starts, then from its own; `child` began from its export;
    `lame` went without the shard from the beginning; `back` took two updates back. The shard is whole again.
    """

    runs: TinyRuns
    skipped: str
    """A document that `changed` learned from in its first start, and read in the second, which skipped it."""

    @property
    def damaged_tar(self) -> Path:
        return self.runs.shards / f"shard-{DAMAGED:06d}.tar"

    @property
    def export(self) -> Path:
        """Of `changed`."""
        return self.runs.folder / "exports" / "changed-megadec"

    def stream(self, *, lame: bool, documents: tuple[str, ...] = ()) -> TrainStream:
        data = DataSet.open(self.runs.shards).without({DAMAGED: "damaged"} if lame else {})
        return TrainStream([(data, 1.0)], ROW_TOKENS, "cut", 0, ROWS, skip_documents=documents)

    @cached_property
    def ids(self) -> list[str]:
        data = DataSet.open(self.runs.shards)
        return [span.id for span in data.documents_between(0, data.tokens)]

    @cached_property
    def read(self) -> Places:
        """What the order has, whether it was learned from or not."""
        return self.places({1: self.stream(lame=False)})

    @cached_property
    def learned(self) -> Places:
        """What went into an update of `changed`, by a replay of its two starts."""
        second = self.stream(lame=True, documents=(self.skipped,))
        places = self.places({1: self.stream(lame=False), FIRST_STOP + 1: second})
        return {id: {place for place in found if place[0] != REFUSED_STEP} for id, found in places.items()}

    def places(self, starts: dict[int, TrainStream]) -> Places:
        """What starts (first step -> stream) do not leave out."""
        found: Places = {}
        for step in range(1, STEPS + 1):
            stream = starts[max(first for first in starts if first <= step)]
            for row, window in enumerate(stream.windows_of(step - 1)):
                for span in stream.documents_of(window):
                    if span.id not in stream.skip_documents:
                        found.setdefault(span.id, set()).add((step, row))
        return found

    @cached_property
    def never(self) -> str:
        """A document that was read and never learned from."""
        return next(id for id in self.ids if self.read.get(id) and not self.learned.get(id))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_path: Path, tiny_shards: Path) -> Left:
    folder = tmp_path_factory.mktemp("left")
    runs = TinyRuns(folder, tiny_tokenizer_path, shutil.copytree(tiny_shards, folder / "shards"))
    found = Left(runs, "")
    steps = {id: {step for step, _ in places} - {REFUSED_STEP} for id, places in found.read.items()}
    skipped = next(id for id in found.ids if steps.get(id) and min(steps[id]) <= FIRST_STOP < max(steps[id]))
    found = Left(runs, skipped)

    def training(name: str, action: str, *options: str, **more: Any) -> dict[str, Any]:
        sections = {"train": {"steps": STEPS}, "checkpoint": {"interval_steps": 2, "keep_last": 9}, **more}
        return runs.training(name, "zero1", *options, guard={"non_finite": action}, evaluate=NO_EVALUATION, **sections)

    def broken(step: int) -> dict[str, Any]:
        return {"rank": 0, "steps": [step], "value": float("nan")}

    lame, resume = "--data.bad_shards=1", f"--checkpoint.resume={runs.checkpoint('changed', FIRST_STOP)}"
    last = {"checkpoint": {"interval_steps": 1, "keep_last": 1}}
    runs.train(
        {**training("changed", "skip", f"--train.stop_at_step={FIRST_STOP}"), "break": broken(REFUSED_STEP)},
        training("branch", "skip", resume, "--train.stop_at_step=5", **last),
        training("branch", "skip", **last),
    )
    whole = found.damaged_tar.read_bytes()
    found.damaged_tar.write_bytes(whole[:CUT_BYTES])
    runs.train(
        training("changed", "skip", lame, f"--data.skip_documents={skipped}"),
        training("lame", "skip", lame),
        {**training("back", "roll_back", lame, "--train.stop_at_step=6"), "break": broken(4)},
    )
    found.damaged_tar.write_bytes(whole)
    to_megadec(open_model(runs.of("changed")), found.export)
    runs.train(training("child", "skip", model={"init_from": str(found.export)}, train={"steps": 1}))
    assert [line["step"] for line in runs.metrics("changed", "guard")] == [REFUSED_STEP]
    return found


def asked(left: Left, run: Path, *documents: str) -> Any:
    return answer(main, "--run", run, "--document", *documents, "--search", left.runs.folder, "--json", "true")


def places_in(found: list[dict[str, Any]]) -> set[tuple[int, int]]:
    return {(one["step"], one["sequence"]) for one in found}


def test_what_was_learned_from_and_what_was_not_is_what_a_replay_says(left: Left) -> None:
    run = left.runs.of("changed")
    documents = asked(left, run, *left.ids)["documents"][str(run)]
    for document in documents:
        id = document["id"]
        learned = left.learned.get(id, set())
        assert places_in(document["seen"]) == learned, id
        assert places_in(document["skipped"]) == left.read.get(id, set()) - learned, id
        assert document["notes"] == []
    reasons = {
        (document["id"] == left.skipped, one["step"] == REFUSED_STEP, one["why"])
        for document in documents
        for one in document["skipped"]
    }
    assert {(False, True, "no_update"), (True, False, "skip_documents"), (False, False, "damaged_shard")} <= reasons


def test_checkpoints_exports_and_further_runs_are_found_that_began_after_a_document_was_learned_from(
    left: Left,
) -> None:
    run, child, branch = (left.runs.of(name) for name in ("changed", "child", "branch"))
    first = {id: min(step for step, _ in places) for id, places in left.learned.items() if places}
    late = next(id for id, step in first.items() if step > FIRST_STOP)
    found = asked(left, run, late)
    kept = [("changed", step) for step in (6, 8) if step >= first[late]]
    assert sorted((one["run"], one["step"]) for one in found["checkpoints"]) == [*kept, ("child", 1)]
    assert [one["path"] for one in found["exports"]] == [str(left.export)]
    assert [one["path"] for one in found["runs"]] == [str(child)]
    early = next(id for id, step in first.items() if step <= FIRST_STOP)
    further = {one["path"]: one for one in asked(left, run, early)["runs"]}
    assert further.keys() == {str(child), str(branch)}
    # No checkpoint of it names the path any more.
    origin = {"name": "changed", "step": FIRST_STOP}
    assert further[str(branch)] == {"path": str(branch), "from": [origin], "assumed": False}
    assert left.runs.checkpoints("branch") == [STEPS]
    assert left.runs.manifest("branch", STEPS)["run"]["checkpoint"]["resume"] == "auto"


def test_a_run_that_always_went_without_a_shard_has_learned_from_no_window_of_it(left: Left) -> None:
    run, stream = left.runs.of("lame"), left.stream(lame=True)
    documents = asked(left, run, *left.ids)["documents"][str(run)]
    assert set().union(*(places_in(document["seen"]) for document in documents)) == {
        (step, row)
        for step in range(1, STEPS + 1)
        for row, window in enumerate(stream.windows_of(step - 1))
        if not stream.is_lost(window)
    }


def test_while_a_shard_is_damaged_a_run_that_has_read_it_cannot_be_asked(left: Left) -> None:
    data = DataSet.open(left.runs.shards)
    lost = next(span.id for span in data.documents_between(*data.without({DAMAGED: ""}).lost_ranges[0]))
    whole = left.damaged_tar.read_bytes()
    left.damaged_tar.write_bytes(whole[:CUT_BYTES])
    try:
        with pytest.raises(DamagedShardError, match=r"shard-000001\.tar has 1000 bytes.*have read it, or may have"):
            printed(main, "--run", left.runs.of("changed"), "--document", left.skipped)
        told = printed(main, "--run", left.runs.of("lame"), "--document", lost)
    finally:
        left.damaged_tar.write_bytes(whole)
    assert f"{lost}: in none of the run's data sets" in told
    assert "shard-000001.tar is damaged and was not searched; no step has read it" in told


def test_what_no_update_learned_from_is_to_be_withdrawn_from_nothing(left: Left) -> None:
    run = left.runs.of("changed")
    found = asked(left, run, left.never)
    assert (found["first_steps"], found["checkpoints"], found["exports"], found["runs"]) == ({}, [], [], [])
    told = printed(main, "--run", run, "--document", left.never)
    assert "learned from 0 time(s)" in told
    assert "nothing is to be withdrawn" in told


def test_a_step_says_whether_it_made_an_update_and_which_documents_it_skipped(left: Left) -> None:
    run = left.runs.of("changed")
    refused = printed(main, "--run", run, "--step", REFUSED_STEP)
    assert f"step {REFUSED_STEP}: {ROWS} sequences; the guard left the update out" in refused
    assert "the guard" not in printed(main, "--run", run, "--step", FIRST_STOP)
    late = next(step for step, _ in sorted(left.read[left.skipped]) if step > FIRST_STOP)
    assert f"{left.skipped} (skipped)" in printed(main, "--run", run, "--step", late)
    rows = answer(main, "--run", run, "--step", FIRST_STOP, "--json", "true")["runs"][str(run)]
    assert [row["sequence"] for row in rows] == list(range(ROWS))
    for row in rows:
        for document in row["documents"]:
            assert (FIRST_STOP, row["sequence"]) in left.learned[document["id"]]


def test_updates_that_were_taken_back_count_for_nothing(left: Left) -> None:
    """Step 3 made an update, which went when step 4 took the weights back to those of step 2."""
    run = left.runs.of("back")
    documents = asked(left, run, *left.ids)["documents"][str(run)]
    seen = {one["step"] for document in documents for one in document["seen"]}
    no_update = {one["step"] for d in documents for one in d["skipped"] if one["why"] == "no_update"}
    assert (seen, no_update) == ({1, 2, 5, 6}, {3, 4})


def test_where_a_checkpoint_does_not_say_what_was_left_out_it_counts_as_learned_from(left: Left) -> None:
    run = left.runs.folder / "before" / "changed"
    shutil.copytree(left.runs.of("changed"), run)
    for path in run.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["starts"]
        path.write_text(json.dumps(manifest))
    [document] = asked(left, run, left.skipped)["documents"][str(run)]
    assert places_in(document["seen"]) == {place for place in left.read[left.skipped] if place[0] != REFUSED_STEP}
    assert "the checkpoints do not say what steps" in document["notes"][0]
    # The export says by its hash that it left out other things than these manifests have.
    exports = asked(left, run, left.never)["exports"]
    assert [(one["path"], one["assumed"]) for one in exports] == [(str(left.export), True)]
