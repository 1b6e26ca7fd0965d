"""Runs as they ship, and options that cannot be."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import fsspec
import pytest
import torch

from megadec.common.config import from_dict, from_yaml, parse, to_dict
from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.data.shard_cache import ShardCacheOptions
from megadec.decoder.flops import parameter_table
from megadec.decoder.heads import LanguageLoss
from megadec.decoder.model import Decoder
from megadec.decoder.recompute import Recompute
from megadec.decoder.shape import DecoderShape
from megadec.engine.runs.pretrain import DataOptions, ModelOptions, Run, first_values, open_run, open_sets
from megadec.engine.runs.seq2seq import PairsRun, open_pairs_run
from megadec.engine.zero.settings import TrainOptions
from tests.support import PROJECT
from tests.support.decoders import TINY

RUNS = [
    file for file in sorted((PROJECT / "launch" / "runs").glob("*.yaml")) if "launch/pretrain.py" in file.read_text()
]


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_each_shipped_run_is_read_and_has_the_name_of_its_file(file: Path) -> None:
    run = from_yaml(Run, file)
    assert run.name == file.stem
    assert set(run.evaluate.sets.values()).isdisjoint(run.data.train)


def test_a_preset_takes_changes_and_the_tokenizers_vocabulary(tiny_tokenizer_path: Path) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    shape = ModelOptions(preset="10m", shape={"layers": 3, "tied_embeddings": False}).decoder_shape(tokenizer)
    assert (shape.layers, shape.tied_embeddings, shape.vocabulary_size) == (3, False, tokenizer.vocabulary_size)
    assert ModelOptions(preset="10m", shape={"vocabulary_size": 1024}).decoder_shape(tokenizer).vocabulary_size == 1024


def test_a_shape_without_preset_names_what_is_missing(tiny_tokenizer_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.shape\.layers is missing"):
        ModelOptions(shape={"hidden_size": 64}).decoder_shape(Tokenizer.load(tiny_tokenizer_path))


class Initial:
    """A model on disk, as far as a run looks at it before it reads tensors."""

    def __init__(self, shape: DecoderShape, tokenizer_path: Path) -> None:
        self.path = Path("runs/before")
        self.shape = shape
        self.tokenizer_path = tokenizer_path

    def tensor(self, name: str) -> torch.Tensor:
        return torch.full(parameter_table(self.shape)[name], 0.5, dtype=torch.bfloat16)


SMALL = {key: value for key, value in TINY.items() if key != "vocabulary_size"}


def test_a_run_that_begins_from_a_model_has_its_shape_and_its_weights_and_may_lengthen_its_context(
    tiny_tokenizer_path: Path,
) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    initial = Initial(DecoderShape(vocabulary_size=tokenizer.vocabulary_size, **SMALL), tiny_tokenizer_path)
    run = Run(
        name="x", tokenizer="t", model=ModelOptions(init_from="runs/before", shape={"max_position_embeddings": 128})
    )
    shape = run.model.decoder_shape(tokenizer, initial)
    assert shape == dataclasses.replace(initial.shape, max_position_embeddings=128)
    first = first_values(run, shape, tokenizer, initial)("norm.weight")
    assert (first.dtype, float(first.sum())) == (torch.float32, 32.0)


def test_a_run_does_not_begin_from_a_model_of_another_size_or_tokenizer(
    tiny_tokenizer_path: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    initial = Initial(DecoderShape(vocabulary_size=tokenizer.vocabulary_size, **SMALL), tiny_tokenizer_path)
    run = Run(name="x", tokenizer="t")
    with pytest.raises(ConfigError, match=r"model\.init_from=runs/before: tensor 'layers\.2"):
        first_values(run, dataclasses.replace(initial.shape, layers=3), tokenizer, initial)
    other = tmp_path / "tokenizer.model"
    other.write_bytes(tiny_tokenizer_path.read_bytes() + b"\x2a\x00")
    initial.tokenizer_path = other
    with pytest.raises(ConfigError, match="another tokenizer"):
        first_values(run, initial.shape, tokenizer, initial)


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        Run(name=name, tokenizer="t")


@pytest.mark.parametrize(
    ("model", "sequence_length", "words"),
    [
        ({"heads": 3, "kv_heads": 1}, 32, r"train\.sequence_parallel_size=2 does not divide model\.shape\.heads=3"),
        ({}, 31, r"data\.sequence_length=31 is not a multiple of train\.sequence_parallel_size=2"),
    ],
)
def test_rows_that_the_ranks_cannot_share_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_tokenizer_path: Path,
    tiny_shards: Path,
    model: dict[str, int],
    sequence_length: int,
    words: str,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = Run(
        name="x",
        tokenizer=str(tiny_tokenizer_path),
        output_folder=str(tmp_path),
        train=TrainOptions(sequence_parallel_size=2),
        model=ModelOptions(shape={**SMALL, **model}),
        data=DataOptions(train={str(tiny_shards): 1.0}, sequence_length=sequence_length),
    )
    with pytest.raises(ConfigError, match=words):
        open_run(run, PROJECT / "ds_configs" / "zero3.json")


def test_only_pretraining_shares_rows(monkeypatch: pytest.MonkeyPatch, tiny_tokenizer_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = PairsRun(name="x", tokenizer=str(tiny_tokenizer_path), train=TrainOptions(sequence_parallel_size=2))
    with pytest.raises(ConfigError, match=r"train\.sequence_parallel_size=2: only pretraining shares sequences"):
        open_pairs_run(run, PROJECT / "ds_configs" / "zero3.json")


def test_how_a_run_computes_and_what_it_adds_to_the_loss_reach_the_decoder(
    tmp_path: Path, tiny_tokenizer_path: Path, tiny_shards: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"""
name: asks
tokenizer: {tiny_tokenizer_path}
model:
  shape: {{hidden_size: 16, layers: 2, heads: 2, kv_heads: 1, head_size: 8, intermediate_size: 64,
    max_position_embeddings: 32}}
  execution: {{mlp_tile_tokens: 100, recompute: {{mode: selective, keep: [attention, gate_up]}}}}
data: {{train: {{{tiny_shards}: 1.0}}, sequence_length: 32}}
train: {{global_batch_size: 8, micro_batch_size: 8, precision: fp32}}
loss: {{label_smoothing: 0.1, z_loss: 0.0001}}
"""
    )
    run = from_yaml(Run, file)
    decoder = open_run(run, PROJECT / "ds_configs" / "zero3.json").task.build()
    assert isinstance(decoder, Decoder)
    assert decoder.lm_head.loss == LanguageLoss(0.1, 0.0001)
    assert decoder.execution.recompute == Recompute("selective", keep=("attention", "gate_up"))
    assert [block.mlp.tile_tokens for block in decoder.layers] == [100, 100]


def test_a_cache_that_does_not_hold_the_remote_sets_is_warned_of(tiny_shards: Path, tmp_path: Path, caplog) -> None:
    files = fsspec.filesystem("memory")
    files.pipe({f"/warned/{path.name}": path.read_bytes() for path in tiny_shards.iterdir()})
    cache = ShardCacheOptions(folder=str(tmp_path), bytes=10_000)
    logging.getLogger("megadec").addHandler(caplog.handler)
    try:
        for place, said in (("memory://warned", True), (str(tiny_shards), False)):
            caplog.clear()
            open_sets(Run(name="x", tokenizer="t", data=DataOptions(train={place: 1.0}, cache=cache)))
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
    given = parse(Run, ["--name=x", "--tokenizer=t", f"--data.bad_shards={text}"], description="a test")
    for run in (from_yaml(Run, file), given, from_dict(Run, to_dict(given))):
        assert run.data.bad_shards == value
        assert type(run.data.bad_shards) is type(value)
    with pytest.raises(ConfigError, match=r"data\.bad_shards=1\.5 is neither a whole number of shards nor a share"):
        parse(Run, ["--name=x", "--tokenizer=t", "--data.bad_shards=1.5"], description="a test")


def test_a_run_without_data_sets_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"data\.train names no shards"):
        open_sets(Run(name="x", tokenizer="t", data=DataOptions(bad_shards=0.5)))
