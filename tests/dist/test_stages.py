"""A run that changes course on its way: mixture, batch, sequence length, rates, with AdamW's moments kept."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document
from megadec.corpus.shards import write_shards
from megadec.data.dataset import DataSet
from megadec.data.stream import TrainStream
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.engine.optimizer import OptimizerOptions, build_optimizer
from tests.support.decoders import initialize
from tests.support.tiny_runs import NO_EVALUATION, TINY_RUN, TinyRuns

TRAIN = {"steps": 9, "global_batch_size": 12, "micro_batch_size": 2, "precision": "fp32"}
THETA = 10000.0
ENDS = {"start": 3, "anneal": 6, "long": 9}
STAGE_OF_STEP = ["start"] * 3 + ["anneal"] * 3 + ["long"] * 3


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tiny_documents: list[Document], tiny_tokenizer_path: Path) -> Path:
    """A second set of shards, of a few documents."""
    folder = tmp_path_factory.mktemp("shards") / "good"
    write_shards(tiny_documents[40:90], Tokenizer.load(tiny_tokenizer_path), folder, block_tokens=4096)
    return folder


def mixture(runs: TinyRuns, good: Path) -> dict[str, float]:
    """In the order in which a YAML file is written, for windows are drawn in the order of the sets."""
    return dict(sorted({str(good): 1.0, str(runs.shards): 0.5}.items()))


@pytest.fixture
def stages(runs: TinyRuns, good: Path) -> list[dict[str, Any]]:
    return [
        {
            "name": "anneal",
            "first_step": 4,
            "data": {"train": mixture(runs, good)},
            "train": {"global_batch_size": 24},
            "schedule": {"kind": "warmup_stable_decay", "warmup_steps": 0, "decay_fraction": 1.0},
            "optimizer": {"weight_decay": 0.0, "max_grad_norm": 0.25},
        },
        {
            "name": "long",
            "first_step": 7,
            "data": {"sequence_length": 64},
            "train": {"micro_batch_size": 1},
            "model": {"shape": {"rope_theta": THETA}},
        },
    ]


def staged(runs: TinyRuns, name: str, stages: Any, *options: str, zero: str = "zero3") -> dict[str, Any]:
    stated = {"stages": stages} if stages else {}
    return runs.training(name, zero, *options, train=TRAIN, evaluate=NO_EVALUATION, **stated)


def as_options(anneal: dict[str, Any]) -> dict[str, list[str]]:
    """The same stages as a user adds them to a run that goes on: each states the whole run as it is from there on."""
    said = [f"--train.global_batch_size={anneal['train']['global_batch_size']}"]
    said.append(f"--data.train={json.dumps(anneal['data']['train'])}")
    said += [
        f"--{section}.{key}={value}" for section in ("schedule", "optimizer") for key, value in anneal[section].items()
    ]
    more = ["--data.sequence_length=64", "--train.micro_batch_size=1", f"--model.shape.rope_theta={THETA}"]
    return {"anneal": ["--stage=anneal", *said], "long": ["--stage=long", *said, *more]}


def plain_losses(runs: TinyRuns, good: Path) -> list[float]:
    """One AdamW over the batches of the three stages, in plain torch; steps are counted from 0 here."""
    tokenizer = Tokenizer.load(runs.tokenizer)
    shape = DecoderShape(vocabulary_size=tokenizer.vocabulary_size, **TINY_RUN["model"]["shape"])
    decoder = Decoder(shape)
    initialize(decoder, 0)
    start = TrainStream([(DataSet.open(runs.shards), 1.0)], 32, "cut", 0, 12)
    mixed = [(DataSet.open(folder), weight) for folder, weight in mixture(runs, good).items()]
    anneal = start.next_stage("anneal", 3, mixed, sequence_length=32, packing="cut", global_batch_size=24)
    long = anneal.next_stage("long", 6, mixed, sequence_length=64, packing="cut", global_batch_size=24)
    adamw = build_optimizer(decoder.named_parameters(), OptimizerOptions())
    losses = []
    for step, stream in enumerate([start] * 3 + [anneal] * 3 + [long] * 3):
        if step == 6:
            decoder.shape = DecoderShape(**{**shape.to_dict(), "rope_theta": THETA})
        [batch] = stream.batch(step)
        loss = decoder(batch.ids_BS, **batch.model_arguments()) / batch.valid_tokens
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0 if step < 3 else 0.25)
        # Warm-up over three steps; then, over the six that are left, down from the peak along 1 - sqrt(progress).
        factor = (step + 1) / 3 if step < 3 else 0.1 + 0.9 * (1 - ((step - 3) / 5) ** 0.5)
        for group in adamw.param_groups:
            group["lr"] = 0.003 * factor
            if step == 3:
                group["weight_decay"] = 0.0
        adamw.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_run_of_three_stages_is_one_optimizer_over_their_batches_wherever_and_however_it_stops(
    runs: TinyRuns, stages: list[dict[str, Any]], good: Path
) -> None:
    options = as_options(stages[0])
    first = f"--checkpoint.resume={runs.checkpoint('added', 3)}"
    runs.train(
        staged(runs, "whole", stages),
        *(staged(runs, zero, stages, zero=zero) for zero in ("zero0", "zero1")),
        # Stopped at the end of a stage, and within one.
        *(
            staged(runs, "parts", stages, *stop)
            for stop in (["--train.stop_at_step=3"], ["--train.stop_at_step=5"], [])
        ),
        # The same stages added on the way, the last one in a folder of its own; a command that is given again goes on.
        staged(runs, "added", None, "--train.stop_at_step=3"),
        {**staged(runs, "added", None, *options["anneal"][1:]), "refused": "ConfigError"},
        *(staged(runs, "added", None, first, *options["anneal"], f"--train.stop_at_step={stop}") for stop in (5, 6)),
        staged(runs, "apart", None, f"--checkpoint.resume={runs.of('added')}", *options["long"]),
    )
    runs.train(
        # What has begun stays; what comes later is free.
        {**staged(runs, "parts", [{**stages[0], "first_step": 5}, stages[1]]), "refused": "ConfigError"},
        staged(runs, "other", stages[:1], f"--checkpoint.resume={runs.checkpoint('parts', 5)}"),
        staged(runs, "alone", stages, f"--checkpoint.resume={runs.checkpoint('parts', 3)}"),
        ranks=1,
    )
    whole = runs.losses("whole")
    assert whole == pytest.approx(plain_losses(runs, good), rel=1e-5)
    for zero in ("zero0", "zero1"):
        assert runs.losses(zero) == pytest.approx(whole, rel=1e-5), zero
    assert runs.losses("parts") == whole
    assert runs.losses("added") == whole[:6]
    assert [line["loss"] for line in runs.metrics("apart")] == whole[6:]
    # Every bit of weights and moments, and how often AdamW has updated them.
    for name in ("parts", "apart"):
        for key in ("bit_sums", "optimizer_step", "shape"):
            assert runs.manifest(name, 9)[key] == runs.manifest("whole", 9)[key], (name, key)
    assert runs.manifest("whole", 9)["optimizer_step"] == 9
    assert runs.manifest("parts", 3)["shape"]["rope_theta"] == 1e6
    assert runs.manifest("whole", 9)["shape"]["rope_theta"] == THETA
    assert [line["loss"] for line in runs.metrics("alone")] == pytest.approx(whole[3:], rel=1e-5)
    assert next(line["loss"] for line in runs.metrics("other")) == pytest.approx(whole[5], rel=1e-5)
    for name, known in (("whole", STAGE_OF_STEP), ("added", STAGE_OF_STEP[:6]), ("apart", STAGE_OF_STEP[6:])):
        found = [line.get("stage") for line in runs.metrics(name)]
        assert found == ([None] * 3 + known[3:] if name == "added" else known), name
    [said, _] = runs.refusals("added", "ConfigError")
    assert "optimizer.max_grad_norm: 1.0 there, 0.25 here" in said
    assert f"--checkpoint.resume={runs.checkpoint('added', 3)} --stage NAME" in said
    [said] = runs.refusals("parts", "ConfigError")
    assert "was trained in the stages start (from step 1), anneal (from step 4), long (from step 7)" in said


CASES = [(1, "zero3", "fp32"), (2, "zero3", "fp32"), (3, "zero3", "fp32"), (2, "zero2", "fp32"), (2, "zero1", "bf16")]


@pytest.fixture
def late(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same stages, later, for a run of 60 steps."""
    return [{**stage, "first_step": first} for stage, first in zip(stages, (20, 40), strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "zero", "precision"), CASES)
def test_ten_stops_at_random_places_change_no_digit(
    runs: TinyRuns, late: list[dict[str, Any]], ranks: int, zero: str, precision: str
) -> None:
    usual = ("--train.steps=60", f"--train.precision={precision}")
    stops = [f"--train.stop_at_step={stop}" for stop in sorted(random.Random(ranks).sample(range(1, 60), 10))]
    runs.train(
        staged(runs, "whole", late, *usual, zero=zero),
        *(staged(runs, "parts", late, *usual, *stop, zero=zero) for stop in [*([one] for one in stops), []]),
        ranks=ranks,
    )
    assert runs.losses("parts") == runs.losses("whole")
    assert len(runs.losses("whole")) == 60
    assert runs.manifest("parts", 60)["bit_sums"] == runs.manifest("whole", 60)["bit_sums"]


@pytest.mark.slow
def test_starts_at_other_numbers_of_ranks_go_through_the_same_stages(
    runs: TinyRuns, late: list[dict[str, Any]]
) -> None:
    chance = random.Random(1)
    runs.train(staged(runs, "whole", late, "--train.steps=60"), ranks=1)
    for stop in [*sorted(chance.sample(range(1, 60), 10)), 60]:
        runs.train(
            staged(runs, "parts", late, "--train.steps=60", f"--train.stop_at_step={stop}"),
            ranks=chance.choice((1, 2, 3)),
        )
    # Sums over ranks are rounded in another order.
    assert runs.losses("parts") == pytest.approx(runs.losses("whole"), rel=1e-4)
