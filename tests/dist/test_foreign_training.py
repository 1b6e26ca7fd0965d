"""A model made elsewhere is trained on with its own tokenizer.json: shards, pretraining, fine-tuning, exports."""

from pathlib import Path

import numpy as np
import pytest

from megadec.common.tokenizer import Tokenizer
from megadec.corpus.prepare import main as prepare
from megadec.data.dataset import DataSet
from megadec.export.commands import convert
from megadec.export.read.inputs import Form
from tests.support import PROJECT
from tests.support.foreign_tokenizers import foreign
from tests.support.tiny_runs import TINY_RUN, TinyRuns
from tests.support.titles import fine_tuning

transformers = pytest.importorskip("transformers")


def test_a_byte_level_model_is_trained_on_and_exported_with_the_ids_that_it_came_with(
    tmp_path: Path, tiny_tokenizer_path: Path
) -> None:
    source = foreign("qwen", tmp_path / "qwen", tiny_tokenizer_path, **TINY_RUN["model"]["shape"])
    theirs = transformers.AutoTokenizer.from_pretrained(source)
    shards = tmp_path / "shards"
    texts = sorted(map(str, (PROJECT / "samples" / "thucnews" / "科技").glob("*.txt")))
    prepare(["--source", "text", "--input", *texts, "--tokenizer", str(source), "--output", str(shards)])
    check_shards(shards, source)
    runs = TinyRuns(tmp_path, source, shards)
    steps = {"steps": 2}
    first = runs.training("on", "zero2", model={"init_from": str(source)}, train=steps)
    write = fine_tuning(tmp_path, tiny_tokenizer_path)
    then = write("labels", model={"path": str(runs.of("on"))}, train=steps, evaluate={"interval_steps": 2})
    runs.train(first, {"kind": "finetune", "run": str(then), "deepspeed": str(runs.zero("zero2"))}, ranks=1)
    for name in ("on", "labels"):
        convert(["--input", str(runs.of(name)), "--to", "hf", "--output", str(tmp_path / f"{name}-hf")])
        made = transformers.AutoTokenizer.from_pretrained(tmp_path / f"{name}-hf")
        for text in (" 长江全长6300公里。", "<|im_end|>"):
            how = {"split_special_tokens": True}
            assert made(text, **how)["input_ids"] == theirs(text, **how)["input_ids"]
    # A classifier takes a text for a text without being asked, and begins it as transformers does.
    tokenizer = Tokenizer.load(tmp_path / "labels-hf")
    assert Form().encode(tokenizer, ["你<|im_end|>"]) == [made("你<|im_end|>")["input_ids"]]


def check_shards(folder: Path, source: Path) -> None:
    """Documents are found by the token that opens them and end with the other; both stand nowhere else."""
    tokenizer = Tokenizer.load(source)
    data = DataSet.open(folder, tokenizer.sha256)
    data.verify()
    tokens = np.concatenate([data.block_tokens(block) for block in range(data.blocks)])
    begins, ends = (np.flatnonzero(tokens == one) for one in (tokenizer.bos_id, tokenizer.eos_id))
    assert len(begins) == len(ends) == data.documents
    assert (begins[1:] == ends[:-1] + 1).all()
