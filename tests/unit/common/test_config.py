"""Laws of the command line and the configuration files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from megadec.common.config import from_dict, parse, take_options, to_dict, to_yaml
from megadec.common.errors import ConfigError


@dataclass(frozen=True)
class Item:
    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Data:
    train: tuple[Item, ...] = ()
    sequence_length: int = 512
    packing: Literal["cut", "best_fit"] = "cut"


@dataclass(frozen=True)
class Run:
    name: str
    data: Data = field(default_factory=Data)
    rate: float = 1e-3
    tokenizer: Path | None = None
    verbose: bool = False
    input: tuple[Path, ...] = ()
    shape: dict[str, bool | int | float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ConfigError(f"rate={self.rate}: a positive number is expected")


def build(*argv: str) -> Run:
    return parse(Run, argv, description="a test")


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("name: a\nrate: 1e-4\ndata: {sequence_length: 64, train: [{path: x, weight: 2}]}\n")
    run = build("--config", str(file), "--data.sequence_length", "128")
    assert run == Run("a", Data((Item(Path("x"), 2.0),), 128), 1e-4)


def test_an_entry_of_a_mapping_is_set_beside_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("name: a\nshape: {layers: 4, heads: 2}\n")
    words = "--shape.layers 8 --shape.tied=false --shape.eps 1e-6 --shape.a-b=gru"
    run = build("--config", str(file), *words.split())
    assert run.shape == {"layers": 8, "heads": 2, "tied": False, "eps": 1e-6, "a-b": "gru"}


def test_a_run_survives_the_way_through_a_dict() -> None:
    run = Run("a", Data((Item(Path("x")),)), tokenizer=Path("t"), input=(Path("p"),))
    assert from_dict(Run, to_dict(run)) == run
    assert "sequence_length: 512" in to_yaml(run)


def test_hyphens_tuples_and_flags_are_read() -> None:
    words = "--name a --input p q --verbose --data.sequence-length=7 --data.train"
    run = build(*words.split(), "{path: x}")
    assert run.input == (Path("p"), Path("q"))
    assert run.verbose
    assert run.data == Data((Item(Path("x")),), 7)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--name a --data.sequence_lenght 3", ["--data.sequence_lenght", "did you mean 'data.sequence_length'"]),
        ("--name a --data.foo 3", ["--data.foo", "; data has ", "sequence_length"]),
        ("--name a --data.packing zz", ["data.packing", "best_fit", "zz"]),
        ("--data.sequence_length 3", ["name"]),
        ("--name a --rate -1", ["rate=-1.0"]),
        ("--name a --data.sequence_length many", ["data.sequence_length", "many"]),
        ("--name a stray", ["--name takes one value"]),
        ("--config /nowhere.yaml", ["/nowhere.yaml does not exist"]),
        ("--config bad.yaml", ["bad.yaml", "unknown key 'data.train[0].weigh'", "did you mean 'weight'"]),
        ("--config none.yaml", ["none.yaml is not a YAML file"]),
    ],
)
def test_a_mistake_is_one_clear_error(
    argv: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("name: a\ndata: {train: [{path: x, weigh: 3}]}\n")
    Path("none.yaml").write_text("name: [a\n")
    with pytest.raises(ConfigError) as caught:
        build(*argv.split())
    for word in words:
        assert word in str(caught.value)


def test_a_launchers_options_are_taken_off_the_command_line() -> None:
    taken, rest = take_options(["--local_rank=1", "--name", "a", "--deepspeed", "z.json"], ["local_rank", "deepspeed"])
    assert taken == {"local_rank": "1", "deepspeed": "z.json"}
    assert rest == ["--name", "a"]
    with pytest.raises(ConfigError, match="--deepspeed needs a value"):
        take_options(["--deepspeed", "--name"], ["deepspeed"])
