"""The parts of a rehearsal that start no process: what is chosen, how it is judged, what is set up."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from megadec.common.config import from_yaml
from megadec.common.errors import ConfigError, ShardError
from megadec.data.dataset import DataSet
from megadec.data.shard_cache import DamagedShardError
from megadec.engine.early_stopping import EarlyStopping
from megadec.engine.runs.pretrain import DataOptions, EvaluateOptions, ModelOptions, PretrainRun
from megadec.engine.runs.stages import StageOptions, changes_of
from megadec.rehearse.acts import damaged
from megadec.rehearse.attempt import read_lines
from megadec.rehearse.disturbances import ALL_RANKS, LAUNCHER, RehearsalOptions, choose
from megadec.rehearse.rehearsal import Rehearsal
from megadec.rehearse.report import (
    Outcome,
    RehearsalReport,
    difference,
    judge,
    losses_of,
    table,
    unfinished_in,
    went_on_from,
)
from megadec.rehearse.scale import scale

LAST = 20
GOOD = Outcome(
    3, 2, "zero3.json", "kill -9 of rank 1", "kill", 1, "in a save", 7, 247, 2.5, 4, 6, 6, 0.0, True, (".a",)
)


def test_a_seed_decides_everything_and_the_counts_are_those_asked_for() -> None:
    options = RehearsalOptions(kills=30, share_in_saves=0.4, rank_numbers=(1, 2, 3), other_deepspeed=(Path("a"),))
    chosen = choose(options, evaluates=True)
    assert chosen == choose(options, evaluates=True)
    assert chosen != choose(replace(options, seed=1), evaluates=True)
    assert Counter(what.kind for what in chosen) == {
        "kill": 30, "stop": 2, "cut shard": 1, "flipped byte": 1, "full disk": 1, "full disk for a while": 1,
        "full disk between saves": 1, "moved shards": 1, "second start": 1, "named resume": 2,
    }  # fmt: skip
    moments = Counter(what.moment for what in chosen if what.kind == "kill")
    assert moments == {"save": 12, "evaluation": 6, "start": 3, "step": 9}
    assert {what.ranks for what in chosen} == {1, 2, 3}
    assert {what.deepspeed for what in chosen} == {0, 1}
    assert all(what.victim < what.ranks for what in chosen)
    assert {LAUNCHER, ALL_RANKS, 0, 1} <= {what.victim for what in chosen}
    assert {"kill -9 of the launcher", "a shard was cut", "SIGTERM to rank 0"} <= {what.words for what in chosen}


@pytest.mark.parametrize("seed", range(20))
def test_no_start_needs_more_steps_than_it_is_given(seed: int) -> None:
    options = RehearsalOptions(kills=10, seed=seed)
    assert options.run_steps == options.steps_needed == 6 * 22
    for what in choose(options, evaluates=False):
        assert what.moment != "evaluation", "there is nothing to evaluate"
        # `after` steps, and one in which it happens; `after` saves two steps apart, and two more that a miss costs.
        assert what.after + 1 <= 6 if what.moment == "step" else 2 * (what.after + 2) <= 6
        assert not (what.moment == "start" and what.victim == LAUNCHER)
        assert what.kind != "stop" or what.victim != ALL_RANKS


def test_options_that_cannot_be_are_refused() -> None:
    shares = {"share_in_saves": 0.9, "share_in_evaluations": 0.2}
    others = ({"kills": -1}, {"ranks": 0}, {"rank_numbers": (2, 0)}, {"steps": 50}, {"tolerance": -1.0})
    for wrong in (shares, *others, {"patience_seconds": 0.0}):
        with pytest.raises(ConfigError, match="rehears"):
            RehearsalOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"loss_difference": 1e-4}, "a loss differs by 0.0001, more than 1e-05"),
        ({"loss_difference": float("nan")}, "a loss differs by nan"),
        ({"left_over": (".a",)}, "left over: .a"),
        ({"went_on_from": 4}, "went on from step 4, and step 6 was whole"),
        ({"whole": 2, "went_on_from": 2}, "the checkpoint of step 4 was whole and is not any more"),
        ({"status": 0}, "ended with 0"),
        ({"error": "a save did not come in 9 s", "status": None}, "a save did not come in 9 s"),
        ({"place": "while it started", "at_step": 6}, None),
        ({"place": "while it started"}, "was killed before its first step, and did 3 steps"),
        ({"kind": "stop", "status": 0, "at_step": 6}, None),
        ({"kind": "stop", "status": 0}, "was asked to stop at step 7, and saved step 6"),
        ({"kind": "stop", "status": 247, "at_step": 6}, "ended with 247"),
        ({"kind": "stop", "status": -15, "victim": LAUNCHER, "at_step": 6}, None),
        ({"kind": "cut shard", "status": 2}, None),
        ({"kind": "cut shard", "status": 0}, "ended with 0"),
        ({"kind": "flipped byte", "status": 2, "said": False}, "did not say what was wrong"),
        ({"kind": "full disk", "status": 1, "left": ()}, None),
        ({"kind": "full disk", "status": 1}, "left .a on the full disk"),
        ({"kind": "full disk for a while", "status": 1, "at_step": 6}, "ended with 1"),
        ({"kind": "full disk between saves", "status": 0}, "was asked to stop at step 7, and saved step 6"),
        ({"kind": "moved shards", "status": 2, "at_step": 6}, "ended with 2"),
        ({"kind": "named resume", "status": 0, "at_step": 6}, None),
        ({"kind": "second start", "status": 0, "at_step": 6, "said": False}, "did not say what was wrong"),
        ({"kind": None, "status": 0, "at_step": LAST, "whole": LAST, "went_on_from": LAST}, None),
        ({"kind": None, "status": 0}, "ended at step 7 with the checkpoint of step 6, not at step 20"),
    ],
)
def test_a_row_that_is_not_as_it_must_be_is_named_with_its_reason(
    changes: dict[str, object], words: str | None
) -> None:
    wrong = judge(replace(GOOD, **changes), 1e-5, LAST)  # type: ignore[arg-type]
    if words is None:
        assert wrong == []
    else:
        [found] = wrong
        assert words in found


def test_losses_are_compared_by_what_was_measured_and_when() -> None:
    lines = [
        {"kind": "train", "step": 1, "loss": 4.0},
        {"kind": "evaluate", "step": 1, "set": "wiki", "loss": 2.0},
        {"kind": "checkpoint", "step": 1, "seconds": 1.0},
    ]
    losses = losses_of(lines)
    assert losses == {("train", 1): 4.0, ("evaluate/wiki", 1): 2.0}
    assert difference({("train", 1): 4.0}, losses) == 0.0
    assert difference({("train", 1): 4.0, ("evaluate/wiki", 1): 1.0}, losses) == 0.5
    assert difference({}, losses) == 0.0
    for strange in ({("train", 2): 4.0}, {("train", 1): float("nan")}):
        assert difference(strange, losses) == float("inf")


def test_the_table_has_a_line_for_each_row_and_says_how_many_are_wrong() -> None:
    bad = replace(GOOD, number=4, loss_difference=0.5)
    report = RehearsalReport({}, 0, LAST, 1e-5, [GOOD, bad], 3.0, 3.0, 9.0)
    assert [row["steps_lost"] for row in json.loads(json.dumps(report.to_json()))["rows"]] == [1, 1]
    lines = table(report).splitlines()
    assert lines[2] == "| 3 | 2 | kill -9 of rank 1 | in a save | 7 | 247 after 2.5 s | 6 | 6 | 1 | 0 | 1 | 0 | ok |"
    assert "a loss differs by 0.5" in lines[3]
    assert lines[-1] == "1 of 2 rows are not as they must be."
    assert "2 x kill in a save" in lines[-2]
    assert table(replace(report, rows=[GOOD])).endswith("All 1 rows are as they must be.")


def test_where_a_start_went_on_is_read_from_its_output() -> None:
    assert went_on_from("10:00:00 [rank 0] going on from /a b/runs/x/checkpoints/step_00000012\n", True) == 12
    assert went_on_from("10:00:00 going on from /runs/x/checkpoints/step_00000012", False) == 12
    assert went_on_from("", True) == 0
    assert went_on_from("error: no", False) is None


def test_only_whole_lines_that_a_start_adds_to_the_metrics_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"

    def line(step: int, seconds: float) -> str:
        return json.dumps({"kind": "train", "step": step, "seconds": seconds}) + "\n"

    assert read_lines(path) == []
    path.write_text(line(1, 0.1) + line(2, 0.2) + line(3, 0.3) + '{"kind"')
    assert [found["step"] for found in read_lines(path)] == [1, 2, 3]
    before = path.read_bytes().splitlines(keepends=True)
    assert read_lines(path, before) == [], "the file is still that of the start before"
    path.write_text(line(1, 0.1) + line(2, 0.2) + line(3, 0.4) + line(4, 0.5)[:9])
    assert [found["seconds"] for found in read_lines(path, before)] == [0.4]


def test_unfinished_files_are_found_in_the_run_and_among_its_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step_00000002").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".step_00000004.1a.partial").mkdir()
    (tmp_path / ".metrics.jsonl.partial-7").touch()
    (tmp_path / "metrics.jsonl").touch()
    assert unfinished_in(tmp_path) == (".metrics.jsonl.partial-7", "checkpoints/.step_00000004.1a.partial")


@pytest.fixture
def real_run(tiny_tokenizer_path: Path, tiny_shards: Path) -> PretrainRun:
    model = ModelOptions(preset="10m", shape={"vocabulary_size": 32000, "qk_norm": False})
    data = DataOptions({str(tiny_shards): 2.0}, sequence_length=512, bad_shards=1)
    return PretrainRun(
        name="real",
        tokenizer=str(tiny_tokenizer_path),
        model=model,
        data=data,
        evaluate=EvaluateOptions({"tiny": str(tiny_shards)}),
        early_stopping=EarlyStopping("tiny/loss", 3, False),
    )


def test_a_run_is_scaled_down_and_keeps_its_kind(real_run: PretrainRun) -> None:
    scaled = scale(real_run, RehearsalOptions(rank_numbers=(2, 3)))
    shape = scaled.model.shape
    assert (shape["hidden_size"], shape["layers"], shape["qk_norm"]) == (32, 2, False)
    assert scaled.train.global_batch_size % 6 == 0
    assert scaled.train.precision == real_run.train.precision
    assert scaled.optimizer == real_run.optimizer
    assert scaled.data.sequence_length == 64
    assert scaled.early_stopping.patience == 0
    assert scale(real_run, RehearsalOptions(own_model=True)).model == real_run.model
    shared = replace(real_run, train=replace(real_run.train, sequence_parallel_size=2))
    assert scale(shared, RehearsalOptions(ranks=4)).model.shape["heads"] == 4
    with pytest.raises(ConfigError, match=r"does not divide the 3 rank\(s\)"):
        scale(shared, RehearsalOptions(ranks=3))


def test_the_stages_of_a_run_are_scaled_with_it_and_spread_over_its_steps(real_run: PretrainRun) -> None:
    [folder] = real_run.data.train
    longer = {"sequence_length": 1024, "train": {folder: 1.0}}
    context = {"shape": {"max_position_embeddings": 1024, "rope_theta": 1e7}}
    stages = (
        StageOptions("ramp", 1001, train={"global_batch_size": 512, "steps": 9000}, schedule={"warmup_steps": 100}),
        StageOptions("long", 5001, data=longer, train={"micro_batch_size": 1}, model=context),
    )
    scaled = scale(replace(real_run, stages=stages), RehearsalOptions(rank_numbers=(2, 3), kills=8, steps=120))
    ramp, long = scaled.stages
    assert (ramp.first_step, long.first_step, scaled.train.steps) == (41, 81, 120)
    assert (ramp.train, ramp.schedule) == ({"global_batch_size": 24}, {"warmup_steps": 5})
    assert (scaled.data.sequence_length, long.data["sequence_length"]) == (32, 64)
    assert (long.train, long.model) == ({}, {"shape": {"rope_theta": 1e7}})
    assert scaled.model.shape["max_position_embeddings"] == 64
    assert len(changes_of(scaled)) == 2
    with pytest.raises(ConfigError, match="too few for 120 stages"):
        many = tuple(StageOptions(f"number {number}", number + 2) for number in range(120))
        scale(replace(real_run, stages=many), RehearsalOptions(kills=8, steps=120))


def test_the_links_can_be_damaged_and_mended_and_the_users_shards_are_never_touched(
    tmp_path: Path, real_run: PretrainRun, tiny_shards: Path
) -> None:
    before = {path.name: path.read_bytes() for path in tiny_shards.iterdir()}
    zero = tmp_path / "zero3.json"
    zero.write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    rehearsal = Rehearsal(real_run, zero, RehearsalOptions(other_deepspeed=(zero,)), tmp_path / "rehearsal")
    assert from_yaml(PretrainRun, rehearsal.run_file) == rehearsal.run
    assert [json.loads(file.read_text()) for file in rehearsal.deepspeed_files] == [
        {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
    ] * 2
    [folder] = rehearsal.run.data.train
    assert DataSet.open(folder).sha256 == DataSet.open(tiny_shards).sha256
    shard = rehearsal.shards[0]
    with damaged(shard, cut=True), pytest.raises(DamagedShardError, match=shard.name):
        DataSet.open(folder)
    with damaged(shard, cut=False), pytest.raises(ShardError, match=shard.name):
        DataSet.open(folder).verify()
    DataSet.open(folder).verify()
    assert {path.name: path.read_bytes() for path in tiny_shards.iterdir()} == before
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(before)
