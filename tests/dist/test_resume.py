"""A run that was stopped and went on is the run that never stopped."""

import re
import shutil
from pathlib import Path

from tests.support.tiny_runs import TinyRuns

CASES = [("zero3", "fp32"), ("zero3", "bf16"), ("zero2", "bf16"), ("zero1", "bf16"), ("zero0", "fp32")]


def test_a_resumed_run_has_exactly_the_losses_of_one_never_stopped(runs: TinyRuns) -> None:
    plan = []
    for stage, precision in CASES:
        sections = {"train": {"steps": 6, "precision": precision}, "evaluate": {"interval_steps": 2}}
        plan.append(runs.training(f"whole-{stage}-{precision}", stage, **sections))
        # Stopped before, at, and after an evaluation; the third start ends the run, the fourth has nothing to do.
        for stop in (["--train.stop_at_step=1"], ["--train.stop_at_step=4"], [], []):
            plan.append(runs.training(f"parts-{stage}-{precision}", stage, *stop, **sections))
    runs.train(*plan)
    for case in map("-".join, CASES):
        whole, parts = f"whole-{case}", f"parts-{case}"
        assert runs.losses(parts) == runs.losses(whole), case
        keys = ("step", "set", "loss", "bits_per_character")
        found, wanted = ([[line[k] for k in keys] for line in runs.metrics(one, "evaluate")] for one in (parts, whole))
        assert found == wanted, case
        assert [line[0] for line in wanted] == [0, 2, 4, 6]
        assert runs.checkpoints(parts) == [1, 4, 6]
        assert not list(runs.of(parts).glob("checkpoints/.*")), "something is left over"


def test_shards_tokenizer_and_initial_weights_may_lie_elsewhere_when_a_run_goes_on(
    runs: TinyRuns, tmp_path: Path
) -> None:
    moved, tokenizer, weights = (tmp_path / "mount" / name for name in ("moved", "words.model", "weights"))
    shutil.copytree(runs.shards, moved)
    shutil.copyfile(runs.tokenizer, tokenizer)
    there = [f"--tokenizer={tokenizer}", f"--data.train={{{moved}/: 1.0}}", f"--evaluate.sets={{tiny: {moved}}}"]
    base = runs.checkpoint("base", 1)
    sections = {"train": {"steps": 4}, "model": {"init_from": str(base)}}
    runs.train(
        runs.training("base", train={"steps": 1}),
        runs.training("whole", **sections),
        runs.training("moved", "zero3", "--train.stop_at_step=2", **sections),
    )
    base.rename(weights)
    other = f"--model.init_from={runs.checkpoint('moved', 2)}"
    runs.train(
        {**runs.training("moved", "zero3", *there, other, **sections), "refused": "ConfigError"},
        runs.training("moved", "zero3", *there, f"--model.init_from={weights}", **sections),
    )
    assert all(f"model.init_from: '{base}' there" in said for said in runs.refusals("moved", "ConfigError"))
    assert runs.losses("moved") == runs.losses("whole")


def test_what_cannot_go_on_is_refused_and_what_diverges_stops_and_says_where(runs: TinyRuns) -> None:
    def refused(*options: str, **more: str) -> dict[str, object]:
        return {**runs.training("refused", "zero3", *options, train={"steps": 4}), **more}

    diverging = runs.training("diverging", optimizer={"learning_rate": 1e30, "max_grad_norm": 0.0})
    first = f"--checkpoint.resume={runs.checkpoint('refused', 2)}"
    runs.train(
        refused("--train.stop_at_step=2"),
        refused("--optimizer.learning_rate=0.1", refused="ConfigError"),
        refused(),
        refused(first, refused="CheckpointError"),
        # From a checkpoint that is named, another course may begin: here under another name, so the first run stays.
        refused(first, "--name=branch", "--train.steps=4", "--train.stop_at_step=3"),
        refused(first, "--name=branch", "--train.steps=4"),  # the same command again goes on
        refused("--name=branch", "--checkpoint.resume=latest", "--train.steps=4"),
        refused(first, "--name=branch", "--train.steps=5"),  # and so it does after another start
        refused(f"--checkpoint.resume={runs.of('refused')}", "--name=newest", "--train.steps=5"),
        # Nothing is left to train, and what the run went on from becomes a checkpoint of its own.
        refused(f"--checkpoint.resume={runs.checkpoint('refused', 4)}", "--name=copy"),
        {**diverging, "refused": "TrainingError"},
    )
    for error, name, words in (
        ("ConfigError", "refused", r"optimizer\.learning_rate: 0\.003 there, 0\.1 here"),
        ("CheckpointError", "refused", "step_00000004 is newer"),
        ("TrainingError", "diverging", r"^step \d+.* not finite.*rank"),
    ):
        said = runs.refusals(name, error)
        assert len(said) == 2
        assert all(re.search(words, one, re.DOTALL) for one in said), said
    assert len(runs.losses("refused")) == 4
    assert [line["step"] for line in runs.metrics("branch")] == [3, 4, 5]
    assert [line["step"] for line in runs.metrics("newest")] == [5]
    assert runs.checkpoint("copy", 4).is_dir()
    assert not list((runs.of("diverging") / "checkpoints").iterdir())
