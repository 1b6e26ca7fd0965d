"""From a document to the steps, checkpoints, exports and further runs that saw it, with real runs and a real export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from megadec.data.index import DataSet
from megadec.data.stream import TrainStream
from megadec.export.read.megadec import to_megadec
from megadec.export.read.model import open_model
from megadec.lineage.command import main
from tests.support.processes import train_all

STEPS, ROWS, ROW_TOKENS = 8, 8, 32


def test_what_a_document_went_into_is_what_a_replay_of_the_run_says(
    tmp_path: Path,
    make_run: Callable[..., Path],
    zero_file: Callable[..., Path],
    tiny_shards: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    once = {"interval_steps": 100, "sets": {}}
    file = make_run("parent", train={"steps": STEPS}, evaluate=once, checkpoint={"interval_steps": 2})
    train_all(tmp_path, [{"run": str(file), "deepspeed": str(zero_file("zero3"))}])
    runs = tmp_path / "runs"
    export = tmp_path / "exports" / "parent-megadec"
    to_megadec(open_model(runs / "parent"), export)
    file = make_run("child", model={"init_from": str(export)}, train={"steps": 1}, evaluate=once)
    train_all(tmp_path, [{"run": str(file), "deepspeed": str(zero_file("zero1"))}])

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
    assert [(one["step"], one["sequence"]) for one in documents[late]["seen"]] == seen[late]
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
    assert f"step {first} sequence" in capsys.readouterr().out
    main(["--run", folder, "--step", str(first), "--json", "true"])
    rows = json.loads(capsys.readouterr().out)["runs"][folder]
    assert [row["sequence"] for row in rows if late in [d["id"] for d in row["documents"]]] == [
        row for step, row in seen[late] if step == first
    ]


def test_a_run_from_a_named_checkpoint_is_found_when_no_checkpoint_names_the_path_any_more(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    deepspeed, once = str(zero_file("zero1")), {"sets": {}}
    parent = str(make_run("parent", train={"steps": 4}, evaluate=once, checkpoint={"interval_steps": 2}))
    child = str(make_run("child", train={"steps": 4}, evaluate=once, checkpoint={"interval_steps": 1, "keep_last": 1}))
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
    train_all(tmp_path, plan)
    folder = tmp_path / "runs" / "parent"
    main(["--run", str(folder), "--step", "2", "--json", "true"])
    id = json.loads(capsys.readouterr().out)["runs"][str(folder)][0]["documents"][0]["id"]
    main(["--run", str(folder), "--document", id, "--search", str(tmp_path), "--json", "true"])
    answer = json.loads(capsys.readouterr().out)
    child_folder = tmp_path / "runs" / "child"
    assert answer["runs"] == [{"path": str(child_folder), "from": [{"name": "parent", "step": 2}], "assumed": False}]
    [manifest] = [json.loads(path.read_text()) for path in child_folder.glob("checkpoints/*/manifest.json")]
    assert (manifest["step"], manifest["run"]["checkpoint"]["resume"]) == (4, "auto")
