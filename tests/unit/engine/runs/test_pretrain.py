"""Runs as they ship, and options that cannot be."""

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import torch

from megadec.common.config import from_dict, from_yaml, parse, to_dict
from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.data.shard_cache import ShardCacheOptions
from megadec.decoder.execution import Execution, Recompute
from megadec.decoder.flops import parameter_table
from megadec.decoder.loss_options import LanguageLoss
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.engine.runs.common import CheckpointOptions, open_settings
from megadec.engine.runs.open_pretrain import first_values, open_run, open_sets
from megadec.engine.runs.pretrain import DataOptions, ModelOptions, PretrainRun
from megadec.engine.runs.seq2seq import PairsRun, open_pairs_run
from megadec.engine.train_options import TrainOptions
from tests.support import PROJECT
from tests.support.decoders import TINY

RUNS = [
    file for file in sorted((PROJECT / "launch" / "runs").glob("*.yaml")) if "launch/pretrain.py" in file.read_text()
]
ZERO3 = PROJECT / "ds_configs" / "zero3.json"
SHARED = TrainOptions(sequence_parallel_size=2)


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_each_shipped_run_is_read_and_has_the_name_of_its_file(file: Path) -> None:
    run = from_yaml(PretrainRun, file)
    assert run.name == file.stem
    assert set(run.evaluate.sets.values()).isdisjoint(run.data.train)


def test_a_preset_takes_changes_and_the_tokenizers_vocabulary(tokenizer: Tokenizer) -> None:
    shape = ModelOptions(preset="10m", shape={"layers": 3, "tied_embeddings": False}).decoder_shape(tokenizer)
    assert (shape.layers, shape.tied_embeddings, shape.vocabulary_size) == (3, False, tokenizer.vocabulary_size)
    assert ModelOptions(preset="10m", shape={"vocabulary_size": 1024}).decoder_shape(tokenizer).vocabulary_size == 1024


def test_a_shape_without_preset_names_what_is_missing(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"model\.shape\.layers is missing"):
        ModelOptions(shape={"hidden_size": 64}).decoder_shape(tokenizer)


SMALL = {key: value for key, value in TINY.items() if key != "vocabulary_size"}


@pytest.fixture
def initial(tokenizer: Tokenizer) -> Any:
    """A model on disk, as far as a run looks at it before it reads tensors."""
    shape = DecoderShape(vocabulary_size=tokenizer.vocabulary_size, **SMALL)
    found = SimpleNamespace(path=Path("runs/before"), shape=shape, tokenizer_path=tokenizer.path)
    found.tensor = lambda name: torch.full(parameter_table(shape)[name], 0.5, dtype=torch.bfloat16)
    return found


def test_a_run_that_begins_from_a_model_has_its_shape_and_its_weights_and_may_lengthen_its_context(
    tokenizer: Tokenizer, initial: Any
) -> None:
    model = ModelOptions(init_from="runs/before", shape={"max_position_embeddings": 128})
    shape = model.decoder_shape(tokenizer, initial)
    assert shape == dataclasses.replace(initial.shape, max_position_embeddings=128)
    first = first_values(PretrainRun(name="x", tokenizer="t", model=model), shape, tokenizer, initial)("norm.weight")
    assert (first.dtype, float(first.sum())) == (torch.float32, 32.0)


def test_a_run_does_not_begin_from_a_model_of_another_size_or_tokenizer(
    tokenizer: Tokenizer, initial: Any, tmp_path: Path
) -> None:
    run = PretrainRun(name="x", tokenizer="t")
    with pytest.raises(ConfigError, match=r"model\.init_from=runs/before: tensor 'layers\.2"):
        first_values(run, dataclasses.replace(initial.shape, layers=3), tokenizer, initial)
    initial.tokenizer_path = tmp_path / "tokenizer.model"
    initial.tokenizer_path.write_bytes(tokenizer.path.read_bytes() + b"\x2a\x00")
    with pytest.raises(ConfigError, match="another tokenizer"):
        first_values(run, initial.shape, tokenizer, initial)


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        PretrainRun(name=name, tokenizer="t")


@pytest.fixture
def small(tmp_path: Path, tiny_tokenizer_path: Path, tiny_shards: Path) -> PretrainRun:
    return PretrainRun(
        name="x",
        tokenizer=str(tiny_tokenizer_path),
        output_folder=str(tmp_path),
        model=ModelOptions(shape=SMALL),
        data=DataOptions(train={str(tiny_shards): 1.0}, sequence_length=32),
    )


@pytest.mark.parametrize(
    ("model", "sequence_length", "words"),
    [
        ({"heads": 3, "kv_heads": 1}, 32, r"train\.sequence_parallel_size=2 does not divide model\.shape\.heads=3"),
        ({}, 31, r"data\.sequence_length=31 is not a multiple of train\.sequence_parallel_size=2"),
    ],
)
def test_rows_that_the_ranks_cannot_share_are_refused(
    monkeypatch: pytest.MonkeyPatch, small: PretrainRun, model: dict[str, int], sequence_length: int, words: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = dataclasses.replace(
        small,
        train=SHARED,
        model=ModelOptions(shape={**SMALL, **model}),
        data=dataclasses.replace(small.data, sequence_length=sequence_length),
    )
    with pytest.raises(ConfigError, match=words):
        open_run(run, ZERO3)


def test_only_pretraining_shares_rows(monkeypatch: pytest.MonkeyPatch, tiny_tokenizer_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = PairsRun(name="x", tokenizer=str(tiny_tokenizer_path), train=SHARED)
    with pytest.raises(ConfigError, match=r"train\.sequence_parallel_size=2: only pretraining shares sequences"):
        open_pairs_run(run, ZERO3)


def test_how_a_run_computes_and_what_it_adds_to_the_loss_reach_the_decoder(small: PretrainRun) -> None:
    execution = Execution(mlp_tile_tokens=100, recompute=Recompute("selective", keep=("attention", "gate_up")))
    model, loss = ModelOptions(shape=SMALL, execution=execution), LanguageLoss(label_smoothing=0.1, z_loss=0.0001)
    decoder = open_run(dataclasses.replace(small, model=model, loss=loss), ZERO3).task.build()
    assert isinstance(decoder, Decoder)
    assert decoder.lm_head.loss == loss
    assert decoder.execution.recompute == execution.recompute
    assert [block.mlp.tile_tokens for block in decoder.layers] == [100, 100]


def test_a_cache_that_does_not_hold_the_remote_sets_is_warned_of(tiny_shards: Path, tmp_path: Path, caplog) -> None:
    files = fsspec.filesystem("memory")
    files.pipe({f"/warned/{path.name}": path.read_bytes() for path in tiny_shards.iterdir()})
    cache = ShardCacheOptions(folder=str(tmp_path), bytes=10_000)
    logging.getLogger("megadec").addHandler(caplog.handler)
    try:
        for place, said in (("memory://warned", True), (str(tiny_shards), False)):
            caplog.clear()
            open_sets(PretrainRun(name="x", tokenizer="t", data=DataOptions(train={place: 1.0}, cache=cache)))
            assert ("fetched again and again" in caplog.text) == said
    finally:
        logging.getLogger("megadec").removeHandler(caplog.handler)
        files.rm("/warned", recursive=True)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("3", 3), ("0.25", 0.25)])
def test_bad_shards_is_a_number_of_shards_or_a_share_on_the_command_line_and_in_a_file(
    tmp_path: Path, text: str, value: float
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"name: x\ntokenizer: t\ndata: {{bad_shards: {text}}}\n")
    given = parse(PretrainRun, ["--name=x", "--tokenizer=t", f"--data.bad_shards={text}"], description="a test")
    for run in (from_yaml(PretrainRun, file), given, from_dict(PretrainRun, to_dict(given))):
        assert run.data.bad_shards == value
        assert type(run.data.bad_shards) is type(value)
    with pytest.raises(ConfigError, match=r"data\.bad_shards=1\.5 is neither a whole number of shards nor a share"):
        parse(PretrainRun, ["--name=x", "--tokenizer=t", "--data.bad_shards=1.5"], description="a test")


@pytest.mark.parametrize(
    ("said", "meant"),
    [("Auto", "auto"), ("true", "auto"), ("True", "auto"), ("latest", "auto"), ("false", "none"), ("NONE", "none")],
)
def test_what_other_tools_say_for_resuming_is_understood_and_a_path_stays_one(said: str, meant: str) -> None:
    def asked(value: str | bool | None) -> str:
        run = from_dict(PretrainRun, {"name": "x", "tokenizer": "t", "checkpoint": {"resume": value}})
        return run.checkpoint.resume

    assert asked(said) == meant
    with pytest.raises(ConfigError, match="resume is True, a truth value; text belongs there"):
        asked(True)
    with pytest.raises(ConfigError, match="resume is empty"):
        asked(None)


def test_a_place_to_resume_from_that_is_none_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    run = PretrainRun(name="x", tokenizer="t", output_folder=str(tmp_path), checkpoint=CheckpointOptions(resume="neu"))
    with pytest.raises(ConfigError, match=r"checkpoint\.resume=neu is neither auto nor none, nor a folder"):
        open_settings(run, ZERO3)
