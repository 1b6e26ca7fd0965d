"""What was made of weights: by runs and exports that say in their own files where they began."""

import json
from pathlib import Path
from typing import Any

import pytest

from megadec.common.errors import CheckpointError, ConfigError, ExportError
from megadec.lineage.descendants import (
    FirstSteps,
    Origin,
    descendants,
    find_models,
    origin_of_path,
    read_export,
    read_run,
)


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path.parent


def make_run(folder: Path, steps: tuple[int, ...], stated: Any = None, skipped: Any = (), **sections: Any) -> Path:
    """A run's checkpoints as far as lineage reads them: their manifests. stated: the model that it began from."""
    carried = {"origins": sections.pop("origins")} if "origins" in sections else {}
    task = {"kind": "language_model", "initial": stated}
    for step in steps:
        manifest = {"step": step, "run": sections, "task": task, "data": {}, **carried}
        manifest["guard"] = {"skipped": [[first, min(last, step)] for first, last in skipped if first <= step]}
        write(folder / "checkpoints" / f"step_{step:08d}" / "manifest.json", manifest)
    return folder


def make_export(folder: Path, name: str, step: int | None, skipped: str | None = None) -> Path:
    source = {"name": name, "step": step, "skipped_sha256": skipped}
    return write(folder / "megadec.json", {"format": "megadec-export", "source": source})


def found(top: Path, first: dict[Path, int]) -> dict[str, list[str]]:
    answer = descendants({folder: FirstSteps(step, step) for folder, step in first.items()}, find_models([top]))
    return {kind: [str(Path(one["path"]).relative_to(top)) for one in ones] for kind, ones in answer.items()}


def test_checkpoints_and_exports_before_the_first_step_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a", (10, 20, 30))
    make_export(tmp_path / "exports" / "early", "a/step_00000010", 10)
    make_export(tmp_path / "exports" / "late", "a/step_00000030", 30)
    make_export(tmp_path / "exports" / "other", "b/step_00000030", 30)
    answer = found(tmp_path, {run: 15})
    assert answer == {
        "checkpoints": ["runs/a/checkpoints/step_00000020", "runs/a/checkpoints/step_00000030"],
        "exports": ["exports/late"],
        "runs": [],
    }


def test_exports_of_exports_and_runs_that_began_from_them_are_found_however_long_the_chain(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a", (10, 20))
    export = make_export(tmp_path / "exports" / "a-hf", "a/step_00000020", 20)
    make_export(tmp_path / "exports" / "a-gguf", "a-hf", 20)
    make_run(tmp_path / "runs" / "tuned", (5,), stated={"name": "a-hf", "step": 20})
    make_run(tmp_path / "runs" / "on", (7,), model={"init_from": str(export)})
    make_run(tmp_path / "runs" / "gone", (7,), model={"init_from": str(tmp_path / "elsewhere" / "a-hf")})
    make_run(tmp_path / "runs" / "resumed", (40,), checkpoint={"resume": str(run / "checkpoints" / "step_00000020")})
    make_run(tmp_path / "runs" / "before", (40,), checkpoint={"resume": str(run / "checkpoints" / "step_00000010")})
    make_run(tmp_path / "runs" / "scratch", (9,), method="scratch", model={"path": str(export)})
    make_export(tmp_path / "exports" / "tuned-onnx", "tuned/step_00000005", 5)
    answer = found(tmp_path, {run: 12})
    assert answer["exports"] == ["exports/a-gguf", "exports/a-hf", "exports/tuned-onnx"]
    assert answer["runs"] == ["runs/gone", "runs/on", "runs/resumed", "runs/tuned"]
    assert "runs/tuned/checkpoints/step_00000005" in answer["checkpoints"]
    assert "runs/before/checkpoints/step_00000040" not in answer["checkpoints"]


def test_what_a_run_left_out_holds_for_the_weights_that_say_they_left_out_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", (10, 20, 30), skipped=[(12, 13)])
    hashes = {weights.step: weights.skipped_sha256 for weights in read_run(run).checkpoints}
    assert hashes[10] != hashes[20]
    make_export(tmp_path / "same", "a/step_00000020", 20, hashes[20])
    make_export(tmp_path / "other", "a/step_00000020", 20, hashes[10])  # of a history in which step 12 was learned from
    make_export(tmp_path / "silent", "a/step_00000020", 20)
    make_export(tmp_path / "before", "a/step_00000010", 10)
    make_export(tmp_path / "later", "a/step_00000030", 30, hashes[30])
    make_run(tmp_path / "tuned", (5,), stated={"name": "a/step_00000020", "step": 20, "skipped_sha256": hashes[20]})
    make_run(tmp_path / "guessed", (5,), stated={"name": "a/step_00000020", "step": 20})

    def named(first: FirstSteps) -> list[tuple[str, bool]]:
        answer = descendants({run: first}, find_models([tmp_path]))
        ones = (one for kind in ("checkpoints", "exports", "runs") for one in answer[kind])
        return [(str(Path(one["path"]).relative_to(tmp_path)), one["assumed"]) for one in ones]

    later = [("a/checkpoints/step_00000030", False), ("guessed/checkpoints/step_00000005", True)]
    assumed = [("other", True), ("silent", True), ("guessed", True)]
    assert named(FirstSteps(12, 25)) == [*later, ("later", False), *assumed]
    assert named(FirstSteps(12, None)) == [later[1], *assumed]
    assert named(FirstSteps(12, None))[0][1]
    certain = [name for name, is_assumed in named(FirstSteps(12, 12)) if not is_assumed]
    assert {"same", "other", "silent", "later", "tuned", "guessed"} <= set(certain)


def test_weights_of_an_unknown_step_count_as_having_seen_everything_that_was_seen(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", (10,))
    make_export(tmp_path / "unknown", "a", None)
    assert found(tmp_path, {run: 1000}) == {"checkpoints": [], "exports": ["unknown"], "runs": []}
    assert found(tmp_path, {}) == {"checkpoints": [], "exports": [], "runs": []}


def test_a_run_is_no_descendant_of_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", (10, 20), checkpoint={"resume": str(tmp_path / "a" / "checkpoints/step_00000010")})
    answer = found(tmp_path, {run: 15})
    assert answer["runs"] == []
    assert answer["checkpoints"] == ["a/checkpoints/step_00000020"]


def test_a_run_of_the_name_of_its_parent_is_found_and_either_can_be_asked(tmp_path: Path) -> None:
    parent = make_run(tmp_path / "pretrain" / "tiny", (10, 20))
    checkpoint = parent / "checkpoints" / "step_00000020"
    child = make_run(tmp_path / "finetune" / "tiny", (5, 25), stated={"name": "tiny/step_00000020", "step": 20})
    # Its origin's name and step would fit its own later checkpoint as well.
    assert found(tmp_path, {child: 15})["checkpoints"] == ["finetune/tiny/checkpoints/step_00000025"]
    make_run(tmp_path / "resumed" / "tiny", (30,), checkpoint={"resume": str(checkpoint)})
    make_run(tmp_path / "path" / "tiny", (5,), model={"path": str(checkpoint)})
    make_run(tmp_path / "initial" / "tiny", (5,), model={"init_from": str(parent)})
    answer = found(tmp_path, {parent: 15})
    assert answer["runs"] == ["finetune/tiny", "initial/tiny", "path/tiny", "resumed/tiny"]
    assert "finetune/tiny/checkpoints/step_00000005" in answer["checkpoints"]


def test_a_run_that_went_on_by_itself_still_says_what_it_began_from(tmp_path: Path) -> None:
    parent = make_run(tmp_path / "runs" / "a", (10, 20), skipped=[(12, 13)])
    newest = list(read_run(parent).checkpoints)[-1]
    source = {"name": "a/step_00000020", "step": 20, "skipped_sha256": newest.skipped_sha256}
    make_run(tmp_path / "runs" / "on", (40,), origins=[source], checkpoint={"resume": "auto"})
    early = {"name": "a/step_00000010", "step": 10}
    make_run(tmp_path / "runs" / "early", (40,), origins=[early], model={"init_from": str(parent)})
    make_run(tmp_path / "runs" / "old", (40,), origins=[{"path": str(parent / "checkpoints" / "step_00000020")}])
    answer = descendants({parent: FirstSteps(12, 15)}, find_models([tmp_path]))
    told = {Path(one["path"]).name: one["assumed"] for one in answer["runs"]}
    assert told == {"on": False, "old": True}


def test_a_path_tells_its_weights(tmp_path: Path) -> None:
    assert origin_of_path(Path("runs/a/checkpoints/step_00000120")) == Origin("a", 120)
    assert origin_of_path(Path("runs/a")) == Origin("a", None)
    assert origin_of_path(make_export(tmp_path / "x", "b/step_00000007", 7)) == Origin("b", 7)
    model = write(tmp_path / "m" / "manifest.json", {"format": "megadec-model", "source": {"name": "c", "step": 3}})
    assert origin_of_path(model) == Origin("c", 3)


def test_what_is_no_run_or_no_readable_export_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        read_run(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        find_models([tmp_path / "nowhere"])
    write(tmp_path / "odd" / "megadec.json", {"format": "megadec-export"})
    with pytest.raises(ExportError, match=r"source\.name is missing"):
        read_export(tmp_path / "odd")
