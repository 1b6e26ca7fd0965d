"""From a document to the steps, checkpoints, exports and further runs that saw it, with real runs and a real export."""

from __future__ import annotations

from pathlib import Path

from megadec.data.index import DataSet
from megadec.data.stream import TrainStream
from megadec.export.read.megadec import to_megadec
from megadec.export.read.model import open_model
from megadec.lineage.command import main
from tests.support.commands import answer, printed
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

STEPS, ROWS, ROW_TOKENS = 8, 8, 32


def test_what_a_document_went_into_is_what_a_replay_of_the_run_says(tmp_path: Path, runs: TinyRuns) -> None:
    once = {"interval_steps": 100, "sets": {}}
    runs.train(runs.training("parent", train={"steps": STEPS}, evaluate=once, checkpoint={"interval_steps": 2}))
    export = tmp_path / "exports" / "parent-megadec"
    to_megadec(open_model(runs.of("parent")), export)
    runs.train(runs.training("child", "zero1", model={"init_from": str(export)}, train={"steps": 1}, evaluate=once))

    data = DataSet.open(runs.shards)
    stream = TrainStream([(data, 1.0)], ROW_TOKENS, "cut", 0, ROWS)
    seen: dict[str, list[tuple[int, int]]] = {}
    for step in range(STEPS):
        for row, window in enumerate(stream.windows_of(step)):
            for span in stream.documents_of(window):
                seen.setdefault(span.id, []).append((step + 1, row))
    late = next(id for id, places in seen.items() if places[0][0] > 4)
    never = next(span.id for span in data.documents_between(0, data.tokens) if span.id not in seen)

    folder = str(runs.of("parent"))
    found = answer(main, "--run", folder, "--document", late, never, "--search", tmp_path, "--json", "true")
    documents = {one["id"]: one for one in found["documents"][folder]}
    assert [(one["step"], one["sequence"]) for one in documents[late]["seen"]] == seen[late]
    assert documents[never]["found"]
    assert documents[never]["seen"] == []
    first = seen[late][0][0]
    kept = [step for step in (4, 6, 8) if step >= first]
    checkpoints = [(one["run"], one["step"]) for one in found["checkpoints"]]
    assert sorted(checkpoints) == [("child", 1), *(("parent", step) for step in kept)]
    assert [one["path"] for one in found["exports"]] == [str(export)]
    assert [one["path"] for one in found["runs"]] == [str(runs.of("child"))]

    told = printed(main, "--run", folder, "--document", never, "--search", tmp_path)
    assert "nothing is to be withdrawn" in told
    assert f"step {first} sequence" in printed(main, "--run", folder, "--document", late)
    rows = answer(main, "--run", folder, "--step", first, "--json", "true")["runs"][folder]
    assert [row["sequence"] for row in rows if late in [d["id"] for d in row["documents"]]] == [
        row for step, row in seen[late] if step == first
    ]


def test_a_run_from_a_named_checkpoint_is_found_when_no_checkpoint_names_the_path_any_more(
    tmp_path: Path, runs: TinyRuns
) -> None:
    def training(name: str, saving: dict[str, int], *options: str) -> dict[str, object]:
        sections = {"train": {"steps": 4}, "evaluate": NO_EVALUATION, "checkpoint": saving}
        return runs.training(name, "zero1", *options, **sections)

    last, resume = {"interval_steps": 1, "keep_last": 1}, f"--checkpoint.resume={runs.checkpoint('parent', 2)}"
    runs.train(
        training("parent", {"interval_steps": 2}),
        training("child", last, resume, "--train.stop_at_step=3"),
        training("child", last),
    )
    folder = runs.of("parent")
    step = answer(main, "--run", folder, "--step", 2, "--json", "true")
    id = step["runs"][str(folder)][0]["documents"][0]["id"]
    found = answer(main, "--run", folder, "--document", id, "--search", tmp_path, "--json", "true")
    child = str(runs.of("child"))
    assert found["runs"] == [{"path": child, "from": [{"name": "parent", "step": 2}], "assumed": False}]
    assert runs.checkpoints("child") == [4]
    assert runs.manifest("child", 4)["run"]["checkpoint"]["resume"] == "auto"
