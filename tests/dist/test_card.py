"""A run from a data card is the run of its mixture, and needs the card no more once it has begun."""

import yaml

from megadec.common.config import from_yaml
from megadec.engine.runs.open_pretrain import open_sets, stream_of
from megadec.engine.runs.pretrain import PretrainRun
from megadec.plan.mix import mix_of
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

STEPS = 4


def test_a_run_from_a_card_trains_as_its_mixture_warns_of_epochs_and_goes_on_without_the_card(runs: TinyRuns) -> None:
    card = runs.folder / "mix.yaml"
    sources = {"tiny": {"shards": str(runs.shards), "weight": 1.0, "epochs": 0.001}}
    card.write_text(yaml.safe_dump({"sources": sources}))
    sections = {"train": {"steps": STEPS}, "evaluate": NO_EVALUATION}
    from_card = (f"--data.card={card}", "--data.train={}")
    first = runs.training("card", "zero1", *from_card, "--train.stop_at_step=2", **sections)
    plain = runs.training("plain", "zero1", **sections)
    said = runs.train(first, plain, ranks=1)
    assert "is seen" in said
    assert "more than the 0.001 epochs that it may be" in said
    card.unlink()
    runs.train(runs.training("card", "zero1", **sections), ranks=1)
    assert runs.losses("card") == runs.losses("plain")
    assert len(runs.losses("card")) == STEPS
    resolved = from_yaml(PretrainRun, runs.checkpoint("card", 2) / "run.yaml")
    assert resolved.data.card is None
    assert resolved.data.train == {str(runs.shards): 1.0}


def test_the_tokens_of_a_budget_are_those_that_the_run_then_counts(runs: TinyRuns) -> None:
    runs.train(runs.training("counted", "zero1", train={"steps": STEPS}, evaluate=NO_EVALUATION), ranks=1)
    run = from_yaml(PretrainRun, runs.file("counted", train={"steps": STEPS}, evaluate=NO_EVALUATION))
    # metrics.jsonl leaves out the predictions that begin a document, which have no weight.
    stream = stream_of(run, open_sets(run))
    begins = sum(int((stream.batch(step)[0].targets_BS == 1).sum()) for step in range(STEPS))
    assert runs.metrics("counted")[-1]["tokens"] + begins == mix_of(run, {}).tokens
