"""Shards: the bytes are a function of the documents, any reader opens them, and nothing is left half written."""

import gc
import json
from pathlib import Path

import numpy as np
import pytest
import webdataset

from megadec.common.errors import InputError
from megadec.corpus.document import Document, full_text
from megadec.corpus.shards import write_shards
from megadec.corpus.tokenize import token_dtype


def index_of(folder: Path) -> dict:
    return json.loads((folder / "index.json").read_text(encoding="utf-8"))


def samples_of(folder: Path):
    for shard in index_of(folder)["shards"]:
        raw = (folder / shard["name"]).read_bytes()
        for sample in shard["samples"]:
            yield raw, sample


def test_the_same_documents_give_the_same_bytes(tiny_shards, tiny_documents, tokenizer, tmp_path):
    write_shards(iter(tiny_documents), tokenizer, tmp_path / "again", block_tokens=4096, shard_bytes=2**15)
    names = sorted(path.name for path in tiny_shards.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (tiny_shards / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_offsets_in_the_index_point_at_raw_tokens_and_documents(tiny_shards, tiny_documents, tokenizer):
    entries, tokens = [], []
    for raw, sample in samples_of(tiny_shards):
        start, stop = sample["documents_offset"], sample["documents_offset"] + sample["documents_bytes"]
        documents = json.loads(raw[start:stop])["documents"]
        assert len(documents) == sample["documents"]
        block = np.frombuffer(raw, dtype="<u2", count=sample["tokens"], offset=sample["tokens_offset"])
        for entry in documents:
            tokens.append(block[entry["first_token"] : entry["first_token"] + entry["tokens"]].tolist())
        entries.extend(documents)
    assert [entry["id"] for entry in entries] == [document.id for document in tiny_documents]
    assert tokens == [[1, *tokenizer.encode(full_text(document)), 2] for document in tiny_documents]
    assert [entry["characters"] for entry in entries] == [len(full_text(document)) for document in tiny_documents]


def test_the_index_adds_up_at_every_level(tiny_shards):
    index = index_of(tiny_shards)
    assert len(index["shards"]) > 1
    for name in ("tokens", "documents"):
        assert index[name] == sum(shard[name] for shard in index["shards"])
        assert index[name] == sum(sample[name] for shard in index["shards"] for sample in shard["samples"])
        assert index[name] == sum(source[name] for source in index["sources"].values())
    assert index["licences"] == ["licence of comments", "licence of news", "licence of wiki"]
    for shard in index["shards"]:
        assert (tiny_shards / shard["name"]).stat().st_size == shard["bytes"]


# webdataset leaves the files it has read to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_plain_webdataset_reader_opens_the_shards(tiny_shards):
    index = index_of(tiny_shards)
    urls = [str(tiny_shards / shard["name"]) for shard in index["shards"]]
    keys, total = [], 0
    for sample in webdataset.WebDataset(urls, shardshuffle=False).decode():
        keys.append(sample["__key__"])
        total += len(sample["tokens.npy"])
        assert sample["tokens.npy"].dtype == np.uint16
        assert sum(entry["tokens"] for entry in sample["documents.json"]["documents"]) == len(sample["tokens.npy"])
    assert keys == [f"{number:08d}" for number in range(len(keys))]
    assert total == index["tokens"]
    gc.collect()


def test_a_vocabulary_over_65535_is_stored_as_uint32():
    assert [token_dtype(size) for size in (600, 65_535, 65_536)] == ["uint16", "uint16", "uint32"]


def test_text_that_spells_a_control_piece_stays_text(tokenizer, tmp_path):
    index = write_shards([Document(id="x", source="s", text="<s>好</s>")], tokenizer, tmp_path / "set")
    assert index["documents"] == 1
    raw, sample = next(samples_of(tmp_path / "set"))
    block = np.frombuffer(raw, dtype="<u2", count=sample["tokens"], offset=sample["tokens_offset"])
    assert np.flatnonzero(block == 1).tolist() == [0]


def test_no_documents_leave_nothing(tokenizer, tmp_path):
    with pytest.raises(InputError, match="no documents"):
        write_shards([], tokenizer, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_nothing_has_the_final_name_before_all_is_written_and_an_error_removes_it(tiny_documents, tokenizer, tmp_path):
    left_by_a_kill = []

    def given():
        yield from tiny_documents * 3  # more than one chunk
        left_by_a_kill.extend(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
        raise InputError("the dump ends in the middle")

    with pytest.raises(InputError, match="in the middle"):
        write_shards(given(), tokenizer, tmp_path / "set", block_tokens=1000, shard_bytes=4000)
    assert "shard-000000.tar" in {path.name for path in left_by_a_kill}
    assert not {"set", "index.json"} & {part for path in left_by_a_kill for part in path.parts}
    assert list(tmp_path.iterdir()) == []
