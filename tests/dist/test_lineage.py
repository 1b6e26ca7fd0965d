"""From a document to the steps, checkpoints, exports and further runs that saw it, with real runs and a real export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megadec.data.index import DataSet
from megadec.data.shard_cache import DamagedShardError
from megadec.data.stream import TrainStream
from megadec.export.consolidate import open_model
from megadec.export.megadec import to_megadec
from tests.dist.conftest import PRETRAIN, metrics_of, run_ranks
from tools.lineage import main

STEPS, ROWS, ROW_TOKENS = 8, 8, 32
TRAIN_MANY = Path(__file__).parent / "train_many.py"
TRAIN_GUARDED = Path(__file__).parent / "train_guarded.py"
REFUSED_STEP, FIRST_STOP = 2, 4


def test_what_a_document_went_into_is_what_a_replay_of_the_run_says(
    tmp_path: Path,
    make_run: Callable[..., Path],
    zero_file: Callable[..., Path],
    tiny_shards: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    once = {"every_steps": 100, "sets": {}}
    file = make_run("parent", train={"steps": STEPS}, evaluate=once, checkpoint={"every_steps": 2})
    run_ranks(PRETRAIN, ["--deepspeed", str(zero_file("zero3")), "--config", str(file)], ranks=1)
    runs = tmp_path / "runs"
    export = tmp_path / "exports" / "parent-megadec"
    to_megadec(open_model(runs / "parent"), export)
    file = make_run("child", model={"initial": str(export)}, train={"steps": 1}, evaluate=once)
    run_ranks(PRETRAIN, ["--deepspeed", str(zero_file("zero1")), "--config", str(file)], ranks=1)

    data = DataSet.open(tiny_shards)
    stream = TrainStream([(data, 1.0)], ROW_TOKENS, "cut", 0, ROWS)
    seen: dict[str, list[tuple[int, int]]] = {}
    for step in range(STEPS):
        for row, window in enumerate(stream.windows_of(step)):
            for span in stream.documents_of(window):
                seen.setdefault(span.id, []).append((step + 1, row))
    late = next(id for id, places in seen.items() if places[0][0] > 4)
    never = next(span.id for span in data.documents_between(0, data.tokens) if span.id not in seen)

    folder = str(runs / "parent")
    main(["--run", folder, "--document", late, never, "--search", str(tmp_path), "--json", "true"])
    answer = json.loads(capsys.readouterr().out)
    documents = {one["id"]: one for one in answer["documents"][folder]}
    assert [(one["step"], one["row"]) for one in documents[late]["seen"]] == seen[late]
    assert documents[never]["found"]
    assert documents[never]["seen"] == []
    first = seen[late][0][0]
    kept = [step for step in (4, 6, 8) if step >= first]
    checkpoints = [(one["run"], one["step"]) for one in answer["checkpoints"]]
    assert sorted(checkpoints) == [("child", 1), *(("parent", step) for step in kept)]
    assert [one["path"] for one in answer["exports"]] == [str(export)]
    assert [one["path"] for one in answer["runs"]] == [str(runs / "child")]

    main(["--run", folder, "--document", never, "--search", str(tmp_path)])
    assert "nothing is to be withdrawn" in capsys.readouterr().out
    main(["--run", folder, "--document", late])
    assert f"step {first} row" in capsys.readouterr().out
    main(["--run", folder, "--step", str(first), "--json", "true"])
    rows = json.loads(capsys.readouterr().out)["runs"][folder]
    assert [row["row"] for row in rows if late in [d["id"] for d in row["documents"]]] == [
        row for step, row in seen[late] if step == first
    ]


def test_a_run_from_a_named_checkpoint_is_found_when_no_checkpoint_names_the_path_any_more(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    deepspeed, once = str(zero_file("zero1")), {"sets": {}}
    parent = str(make_run("parent", train={"steps": 4}, evaluate=once, checkpoint={"every_steps": 2}))
    child = str(make_run("child", train={"steps": 4}, evaluate=once, checkpoint={"every_steps": 1, "keep_last": 1}))
    checkpoint = tmp_path / "runs" / "parent" / "checkpoints" / "step_00000002"
    plan = [
        {"run": parent, "deepspeed": deepspeed},
        {
            "run": child,
            "deepspeed": deepspeed,
            "options": [f"--checkpoint.resume={checkpoint}", "--train.stop_at_step=3"],
        },
        {"run": child, "deepspeed": deepspeed},
    ]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    run_ranks(TRAIN_MANY, [str(tmp_path / "plan.json")], ranks=1)
    folder = tmp_path / "runs" / "parent"
    main(["--run", str(folder), "--step", "2", "--json", "true"])
    id = json.loads(capsys.readouterr().out)["runs"][str(folder)][0]["documents"][0]["id"]
    main(["--run", str(folder), "--document", id, "--search", str(tmp_path), "--json", "true"])
    answer = json.loads(capsys.readouterr().out)
    child_folder = tmp_path / "runs" / "child"
    assert answer["runs"] == [{"path": str(child_folder), "from": [{"name": "parent", "step": 2}], "assumed": False}]
    [manifest] = [json.loads(path.read_text()) for path in child_folder.glob("checkpoints/*/manifest.json")]
    assert (manifest["step"], manifest["run"]["checkpoint"]["resume"]) == (4, "auto")


def stream_without(folder: Path, shards: dict[int, str], documents: tuple[str, ...]) -> TrainStream:
    data = DataSet.open(folder).without(shards)
    return TrainStream([(data, 1.0)], ROW_TOKENS, "cut", 0, ROWS, skip_documents=documents)


def places_of(folder: Path, starts: dict[int, TrainStream]) -> tuple[dict[str, set[Any]], dict[str, set[Any]]]:
    """Steps and rows by document, as the streams of the starts (first step -> stream) give them: of all that the order
    has there, and of what went into an update."""
    whole = stream_without(folder, {}, ())
    read: dict[str, set[Any]] = {}
    learned: dict[str, set[Any]] = {}
    for step in range(1, STEPS + 1):
        stream = starts[max(first for first in starts if first <= step)]
        for row, window in enumerate(whole.windows_of(step - 1)):
            for span in whole.documents_of(window):
                read.setdefault(span.id, set()).add((step, row))
            if step != REFUSED_STEP:
                for span in stream.documents_of(window):
                    if span.id not in stream.skip_documents:
                        learned.setdefault(span.id, set()).add((step, row))
    return read, learned


def test_a_document_that_a_step_read_and_no_update_learned_from_is_told_apart(
    tmp_path: Path,
    make_run: Callable[..., Path],
    zero_file: Callable[..., Path],
    tiny_shards: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(tiny_shards, shards)
    whole = (shards / "shard-000001.tar").read_bytes()
    data = DataSet.open(shards)
    ids = [span.id for span in data.documents_between(0, data.tokens)]
    read, _ = places_of(shards, {1: stream_without(shards, {}, ())})
    # Learned from in the first start, and read in the second, which skips it.
    steps = {id: {step for step, _ in places} - {REFUSED_STEP} for id, places in read.items()}
    skipped = next(id for id in ids if steps.get(id) and min(steps[id]) <= FIRST_STOP < max(steps[id]))
    usual = {
        "data": {"train": {str(shards): 1.0}},
        "train": {"steps": STEPS},
        "evaluate": {"sets": {}},
        "checkpoint": {"every_steps": 2, "keep_last": 9},
        "guard": {"non_finite": "skip"},
    }
    deepspeed = str(zero_file("zero1"))

    def train(*plan: dict[str, Any]) -> None:
        (tmp_path / "plan.json").write_text(json.dumps([{"deepspeed": deepspeed, **one} for one in plan]))
        run_ranks(TRAIN_GUARDED, [str(tmp_path / "plan.json")], ranks=1)

    def asked(folder: Path, *documents: str) -> dict[str, Any]:
        main(["--run", str(folder), "--document", *documents, "--search", str(tmp_path), "--json", "true"])
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    main_run, lame_run = str(make_run("changed", **usual)), str(make_run("lame", **usual))
    broken = {"rank": 0, "steps": [REFUSED_STEP], "value": float("nan")}
    train({"run": main_run, "options": [f"--train.stop_at_step={FIRST_STOP}"], "break": broken})
    (shards / "shard-000001.tar").write_bytes(whole[:1000])
    lame = "--data.bad_shards=1"
    back_run = str(make_run("back", **{**usual, "guard": {"non_finite": "roll_back"}}))
    train(
        {"run": main_run, "options": [lame, f"--data.skip_documents={skipped}"]},
        {"run": lame_run, "options": [lame]},
        {"run": back_run, "options": [lame, "--train.stop_at_step=6"], "break": {**broken, "steps": [4]}},
    )
    folder = tmp_path / "runs" / "changed"
    assert [line["step"] for line in metrics_of(folder, "guard")] == [REFUSED_STEP]

    # The first start has read the shard, so nobody can say that an id is not in it while it is damaged.
    with pytest.raises(DamagedShardError, match=r"shard-000001\.tar has 1000 bytes.*have read it, or may have"):
        main(["--run", str(folder), "--document", skipped])
    lost = next(span.id for span in data.documents_between(*data.without({1: ""}).lost_ranges[0]))
    main(["--run", str(tmp_path / "runs" / "lame"), "--document", lost])
    told = capsys.readouterr().out
    assert f"{lost}: in none of the run's data sets" in told
    assert "shard-000001.tar is damaged and was not searched; no step has read it" in told

    (shards / "shard-000001.tar").write_bytes(whole)
    without = {1: "damaged"}
    export = tmp_path / "exports" / "changed-megadec"
    to_megadec(open_model(folder), export)
    starts = {1: stream_without(shards, {}, ()), FIRST_STOP + 1: stream_without(shards, without, (skipped,))}
    read, learned = places_of(shards, starts)
    answer = asked(folder, *ids)
    for document in answer["documents"][str(folder)]:
        id = document["id"]
        assert {(one["step"], one["row"]) for one in document["seen"]} == learned.get(id, set()), id
        assert {(one["step"], one["row"]) for one in document["left_out"]} == read.get(id, set()) - learned.get(
            id, set()
        )
        assert document["notes"] == []
    reasons = {
        (document["id"] == skipped, one["step"] == REFUSED_STEP, one["why"])
        for document in answer["documents"][str(folder)]
        for one in document["left_out"]
    }
    assert {(False, True, "no_update"), (True, False, "skip_documents"), (False, False, "damaged_shard")} <= reasons
    lame_answer = asked(tmp_path / "runs" / "lame", *ids)["documents"][str(tmp_path / "runs" / "lame")]
    lame_stream = stream_without(shards, without, ())
    lame_seen = {(one["step"], one["row"]) for document in lame_answer for one in document["seen"]}
    assert lame_seen == {
        (step, row)
        for step in range(1, STEPS + 1)
        for row, window in enumerate(lame_stream.windows_of(step - 1))
        if not lame_stream.is_lost(window)
    }

    # Only by the refused step, and by nothing before the export was made.
    never = next(id for id in ids if id in read and id not in learned)
    answer = asked(folder, never)
    assert (answer["first_steps"], answer["checkpoints"], answer["exports"], answer["runs"]) == ({}, [], [], [])
    main(["--run", str(folder), "--document", never])
    told = capsys.readouterr().out
    assert "learned from 0 time(s)" in told
    assert "nothing is to be withdrawn" in told
    main(["--run", str(folder), "--step", str(REFUSED_STEP)])
    assert f"step {REFUSED_STEP}: {ROWS} rows; the guard left the update out" in capsys.readouterr().out
    main(["--run", str(folder), "--step", str(FIRST_STOP)])
    assert "the guard" not in capsys.readouterr().out
    late = next(step for step, _ in sorted(read[skipped]) if step > FIRST_STOP)
    main(["--run", str(folder), "--step", str(late)])
    told = capsys.readouterr().out
    assert f"{skipped} (skipped)" in told

    # Step 3 made an update, which went when step 4 took the weights back to those of step 2.
    back = tmp_path / "runs" / "back"
    answer = asked(back, *ids)
    seen = {one["step"] for document in answer["documents"][str(back)] for one in document["seen"]}
    taken_back = {
        one["step"]
        for document in answer["documents"][str(back)]
        for one in document["left_out"]
        if one["why"] == "no_update"
    }
    assert (seen, taken_back) == ({1, 2, 5, 6}, {3, 4})

    # A checkpoint from before starts were recorded: what may have been learned from counts, and the answer says so.
    for path in folder.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["starts"]
        path.write_text(json.dumps(manifest))
    [document] = asked(folder, skipped)["documents"][str(folder)]
    assert {(one["step"], one["row"]) for one in document["seen"]} == {
        place for place in read[skipped] if place[0] != REFUSED_STEP
    }
    assert "the checkpoints do not say what steps" in document["notes"][0]
    answer = asked(folder, never)
    # The export says by its hash that it left out other things than the manifests now have.
    assert [(one["path"], one["assumed"]) for one in answer["exports"]] == [(str(export), True)]
