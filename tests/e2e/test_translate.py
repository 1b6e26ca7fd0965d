"""An encoder-decoder from a file of pairs to translations, by the commands that a user types."""

import json
from pathlib import Path

import pytest
import yaml

from megadec.common.config import from_yaml
from megadec.common.errors import ConfigError, InputError
from megadec.data.pairs import PairOptions, choose_pairs
from megadec.decoding.beam import GREEDY
from megadec.engine.runs.seq2seq import PairsRun, open_pairs_run
from megadec.export.read.seq2seq import load_seq2seq
from megadec.finetune.commands import translate
from megadec.finetune.translate import Translator
from tests.support import PROJECT
from tests.support.pair_texts import CHARACTERS, texts, write_pairs
from tests.support.processes import launched, metrics_of, write_run
from tests.support.tokenizers import train_tokenizer

ZERO1 = PROJECT / "ds_configs" / "zero1.json"

SHAPE = {
    "hidden_size": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "heads": 4,
    "kv_heads": 4,
    "head_size": 16,
    "intermediate_size": 128,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learns to write texts backwards, with a vocabulary of single characters."""
    folder = tmp_path_factory.mktemp("pairs")
    pairs = write_pairs(folder / "pairs.txt", texts(4000), "reverse")
    tokenizer = train_tokenizer(folder, [CHARACTERS] * 9, 3 + 256 + len({*CHARACTERS, *"ab "}))
    run = {
        "tokenizer": str(tokenizer),
        "model": {"shape": SHAPE},
        "data": {"source": str(pairs), "held_out_fraction": 0.05, "max_source_tokens": 16, "max_target_tokens": 16},
        "train": {"steps": 300, "global_batch_size": 64, "micro_batch_size": 64, "precision": "fp32"},
        "optimizer": {"learning_rate": 0.004, "weight_decay": 0.01, "beta2": 0.98},
        "schedule": {"warmup_steps": 30, "final_fraction": 0.0},
        "evaluate": {"interval_steps": 100},
        "early_stopping": {"metric": "held_out/loss", "higher_is_better": False},
        "checkpoint": {"interval_steps": 0, "keep_last": 1},
    }
    return write_run(folder, "reverse", run, {})


def test_a_model_trained_by_the_launcher_writes_99_of_100_unseen_texts_backwards(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, script = run_file.parent, PROJECT / "launch" / "seq2seq.py"
    launched(["--deepspeed", str(ZERO1), "--config", str(run_file)], 1, folder / "log", script)
    run = folder / "runs" / "reverse"
    evaluations = metrics_of(run, "evaluate")
    assert [line["set"] for line in evaluations] == ["held_out"] * 4
    trained = load_seq2seq(run)
    unseen = [source for source, _ in choose_pairs(trained.data, "held_out")]
    answers = Translator(trained, GREEDY, batch=50).translate(unseen)
    exact = sum(answer == text[::-1] for answer, text in zip(answers, unseen, strict=True))
    assert exact >= 0.99 * len(unseen) > 100
    # The command line gives the same translations, and BLEU on what was held out.
    translate(["--model", str(run), "--input", "柿子树", "老周", "--beam", "3"])
    assert json.loads(capsys.readouterr().out) == [
        {"source": "柿子树", "translation": "树子柿"},
        {"source": "老周", "translation": "周老"},
    ]
    translate(["--model", str(run), "--pairs", str(folder / "pairs.txt"), "--beam", "2", "--tokenize", "char"])
    found = json.loads(capsys.readouterr().out)
    assert (found["part"], found["pairs"], found["architecture"]) == ("held_out", len(unseen), "transformer_seq2seq")
    assert found["bleu"] > 97
    assert "tok:char" in found["signature"]
    assert set(found["samples"][0]) == {"source", "translation", "reference"}
    with pytest.raises(InputError, match=r"has 31 tokens; the model's context is 16"):
        translate(["--model", str(run), "--input", "柿" * 30])
    with pytest.raises(ConfigError, match="input and pairs were both given"):
        translate(["--model", str(run), "--input", "柿", "--pairs", str(folder / "pairs.txt")])
    with pytest.raises(ConfigError, match="3 files of pairs"):
        translate(["--model", str(run), "--pairs", "a", "b", "c"])


def changed(run_file: Path, **sections: object) -> PairsRun:
    run = yaml.safe_load(run_file.read_text(encoding="utf-8"))
    return from_yaml(PairsRun, write_run(run_file.parent, "another", {**run, "name": "another"}, sections))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"architecture": "rnn_seq2seq"}}, "is not a field of the rnn_seq2seq's shape"),
        (
            {"model": {"shape": {**SHAPE, "max_position_embeddings": 8}}},
            "data.max_source_tokens=16 is more than model.shape.max_position_embeddings=8",
        ),
        ({"model": {"shape": {**SHAPE, "vocabulary_size": 9}}}, "model.shape.vocabulary_size=9 is less than the"),
        ({"data": {"max_target_tokens": 2}}, "no pair is left for the part 'train'"),
        ({"train": {"micro_batch_size": 5}}, "train.global_batch_size=64 is not a multiple of 5"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_costs(
    run_file: Path, sections: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_pairs_run(changed(run_file, **sections), ZERO1)


def test_a_run_without_a_held_out_part_is_not_measured(run_file: Path) -> None:
    job = open_pairs_run(changed(run_file, data={"held_out_fraction": 0.0}), ZERO1)
    assert job.task.evaluate_interval_steps == 0
    assert job.task.stream.windows_per_epoch == 4000
    assert job.task.manifest["architecture"] == "transformer_seq2seq"
    assert PairOptions(**job.task.manifest["data"]).held_out_fraction == 0.0
