"""Requests that are wrong as a whole, by the command that a user types: one line names the key and the rule."""

from pathlib import Path

import pytest

from megadec.common.config import parse
from megadec.common.errors import MegadecError, StorageError
from megadec.engine.runs.pretrain import PretrainRun
from megadec.pretrain.command import pretrain
from tests.support import PROJECT

RUN = """name: x
tokenizer: {tokenizer}
data: {{train: {{{shards}: 1.0}}, sequence_length: 32}}
model: {{preset: 1m}}
"""


@pytest.fixture
def words(tmp_path: Path, tiny_tokenizer_path: Path, tiny_shards: Path) -> list[str]:
    """A run that could be."""
    (tmp_path / "run.yaml").write_text(RUN.format(tokenizer=tiny_tokenizer_path, shards=tiny_shards), encoding="utf-8")
    zero = str(PROJECT / "ds_configs" / "zero1.json")
    return ["--deepspeed", zero, "--config", str(tmp_path / "run.yaml"), "--output_folder", str(tmp_path / "runs")]


def refusal(words: list[str], *more: str) -> str:
    with pytest.raises(MegadecError) as refused:
        pretrain([*words, *more])
    assert refused.value.exit_status == (1 if isinstance(refused.value, StorageError) else 2)
    return str(refused.value)


def rewritten(words: list[str], text: str) -> list[str]:
    """The same with lines more in its file."""
    file = Path(words[words.index("--config") + 1])
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")
    return words


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("optimizer.learning_rate", ".nan", "optimizer.learning_rate=nan is not a finite number"),
        ("optimizer.learning_rate", ".inf", "optimizer.learning_rate=inf is not a finite number"),
        ("optimizer.weight_decay", ".inf", "optimizer.weight_decay=inf is not a finite number"),
        ("optimizer.max_grad_norm", ".nan", "optimizer.max_grad_norm=nan is not a finite number"),
        ("seed", "-1", "seed=-1 is not at least 0"),
        ("data.sequence_length", "0", "data.sequence_length=0 is not at least 1"),
        ("name", "名" * 100, "name has 300 bytes; a folder's name has at most 255"),
        ("train.steps", "1.5", "train.steps=1.5 is not a whole number"),
        ("data.train", "{a: 1.0, a: 2.0}", "--data.train: the key 'a' stands twice"),
    ],
)
def test_a_number_that_is_none_and_a_name_that_no_folder_has_are_refused(
    words: list[str], option: str, value: str, said: str
) -> None:
    assert said in refusal(words, f"--{option}={value}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nname: y\n", "run.yaml: the key 'name' stands twice, again in line 6"),
        ("train: {steps: 5, steps: 6}\n", "run.yaml: the key 'steps' stands twice, again in line 5"),
        ("optimizer: 3\n", "optimizer=3 is not a section"),
        ("optimizer: [1]\n", "optimizer=[1] is not a section"),
    ],
)
def test_a_file_that_says_a_thing_twice_or_a_number_for_a_section_is_refused(
    words: list[str], text: str, said: str
) -> None:
    assert said in refusal(rewritten(words, text))


def test_an_empty_section_has_its_defaults_and_1e3_is_a_thousand(words: list[str]) -> None:
    file = words[words.index("--config") + 1]
    rewritten(words, "optimizer:\n  # learning_rate: 1e-3\ntrain: {steps: 1e3}\nschedule: {warmup_steps: 20.0}\n")
    run = parse(PretrainRun, ["--config", file], description="")
    assert (run.optimizer, run.train.steps, run.schedule.warmup_steps) == (PretrainRun("x", "t").optimizer, 1000, 20)
    assert type(run.train.steps) is int
    given = parse(
        PretrainRun, ["--config", file, "--train.steps", "2e3", "--optimizer.learning_rate", "1e-3"], description=""
    )
    assert (given.train.steps, given.optimizer.learning_rate) == (2000, 0.001)


def test_one_set_under_two_spellings_is_refused(words: list[str], tiny_shards: Path) -> None:
    again = f"{tiny_shards.parent}/./{tiny_shards.name}/"
    assert f"{tiny_shards} and {again} are one set" in refusal(
        words, "--data.train", f"{{{tiny_shards}: 1, {again}: 2}}"
    )


def test_where_a_run_cannot_lie_is_said_before_it_begins(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "x" / "metrics.jsonl").mkdir(parents=True)
    assert f"{tmp_path}/runs/x/metrics.jsonl is a folder" in refusal(words)
    (tmp_path / "file").touch()
    assert "a parent of it is a file" in refusal(words, "--output_folder", str(tmp_path / "file" / "runs"))
