"""What a person sees of a run: its size at the start, plain lines, texts at evaluations, traces; no number changes."""

import gzip
import json

from megadec.api import load
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

PROMPTS = ["今天", "北京"]
EVALUATE = {"interval_steps": 3, "prompts": PROMPTS, "prompt_tokens": 8}


def test_texts_traces_and_lines_tell_of_a_run_and_change_no_loss(runs: TinyRuns) -> None:
    train, metrics = {"steps": 6}, {"progress_seconds": 0.0}
    greedy = {
        "train": {**train, "profile_steps": [2, 5]},
        "evaluate": EVALUATE,
        "metrics": {**metrics, "tensorboard": True},
    }
    drawn = {**NO_EVALUATION, **EVALUATE, "temperature": 1.0}
    said = runs.train(
        runs.training("plain", train=train, evaluate=NO_EVALUATION, metrics=metrics),
        runs.training("seen", **greedy),
        runs.training("drawn", train=train, evaluate=drawn),
        # The same texts where the run goes on from the middle.
        runs.training("parts", "zero3", "--train.stop_at_step=2", train=train, evaluate=drawn),
        runs.training("parts", train=train, evaluate=drawn),
    )
    for name in ("seen", "drawn", "parts"):
        assert runs.losses(name) == runs.losses("plain"), name

    # The banner.
    assert "step 0 of 6, 8 sequences (256 tokens) a step, 1,536 tokens in all; epochs: " in said
    assert f"{runs.shards} " in said
    assert "learning rate up to 0.003" in said
    assert f"metrics in {runs.of('seen')}, checkpoints in {runs.of('seen') / 'checkpoints'}" in said

    # Whole lines, each with the rate and the norm.
    assert "\r" not in said
    lines = [line for line in said.splitlines() if "[rank 0] plain: " in line and "step/s" in line]
    assert [line.partition("% ")[2].partition(" ")[0] for line in lines] == [f"{step}/6" for step in range(1, 7)]
    assert all("lr=" in line and "grad_norm=" in line for line in lines)

    # Texts of step 0, 3 and 6; greedy ones and drawn ones, the latter the same whenever they are drawn.
    samples = {name: runs.metrics(name, "sample") for name in ("seen", "drawn", "parts")}
    for name, found in samples.items():
        assert [(one["step"], one["prompt"]) for one in found] == [(step, p) for step in (0, 3, 6) for p in PROMPTS], (
            name
        )
    assert samples["drawn"] == samples["parts"]
    assert samples["drawn"] != samples["seen"]
    texts = [one["text"] for one in samples["seen"][-2:]]
    saved = load(runs.of("seen"))
    assert texts == [saved.generate(prompt, max_new_tokens=8, temperature=0) for prompt in PROMPTS]
    assert all(texts)
    assert f"step 6 writes: [北京]{samples['seen'][-1]['text']}" in said
    assert "evaluated step" in said.partition("drawn: language model")[0]
    assert list((runs.of("seen") / "tensorboard").iterdir())

    # A trace for each step that was named.
    traces = sorted(runs.of("seen").glob("profiles/*/*"))
    assert [path.parent.name for path in traces] == ["step_00000002", "step_00000005"]
    with gzip.open(traces[0], "rt") as stream:
        events = json.load(stream)["traceEvents"]
    assert any(event.get("name") == "aten::mm" for event in events)
    assert not (runs.of("plain") / "profiles").exists()
