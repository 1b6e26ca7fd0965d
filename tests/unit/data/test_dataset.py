"""A data set is opened only if it is whole and of the right tokenizer, and gives back the tokens that were written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from megadec.common.errors import ShardError
from megadec.corpus.document import full_text
from megadec.data.dataset import DataSet
from megadec.data.shard_cache import DamagedShardError
from megadec.data.windows import plan_windows


@pytest.fixture
def copied(tiny_shards: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_shards, tmp_path / "set")


def change_index(folder: Path, change) -> None:
    path = folder / "index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    change(index)
    path.write_text(json.dumps(index), encoding="utf-8")


def test_a_set_holds_the_tokens_of_its_documents_in_order(tiny_shards, tiny_documents, tokenizer):
    data = DataSet.open(tiny_shards, tokenizer.sha256)
    expected = [token for one in tiny_documents for token in (1, *tokenizer.encode(full_text(one)), 2)]
    assert data.tokens == len(expected)
    assert data.tokens_at(0, data.tokens).tolist() == expected
    data.verify()


def test_tokens_across_blocks_and_shards_are_those_of_the_joined_set(data):
    joined = data.tokens_at(0, data.tokens)
    for border in data.block_starts[1:-1]:
        assert data.tokens_at(border - 3, 7).tolist() == joined[border - 3 : border + 4].tolist()
        assert data.tokens_at(border - 3, 3).tolist() == joined[border - 3 : border].tolist()
        assert data.tokens_at(border, 2).tolist() == joined[border : border + 2].tolist()


def test_tokens_within_a_block_are_a_read_only_view_of_the_map(data):
    view = data.tokens_at(10, 100)
    assert view.base is not None
    assert np.shares_memory(view, data.tokens_at(50, 10))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_no_more_shards_are_mapped_than_allowed(tiny_shards, monkeypatch):
    monkeypatch.setattr("megadec.data.dataset.MAX_OPEN_SHARDS", 2)
    data = DataSet.open(tiny_shards)
    for block in range(data.blocks):
        data.tokens_at(data.block_starts[block], 1)
    assert len(data.index["shards"]) > 2
    assert data._map.cache_info().currsize == 2


def test_documents_between_two_tokens_are_those_that_own_them(data, tiny_documents):
    everything = data.documents_between(0, data.tokens)
    assert [span.id for span in everything] == [document.id for document in tiny_documents]
    chance = np.random.default_rng(0)
    for _ in range(50):
        first, stop = sorted(chance.integers(0, data.tokens + 1, 2).tolist())
        owners = [s for s in everything if s.first_token < stop and s.first_token + s.tokens > first]
        assert data.documents_between(first, stop) == (owners if first < stop else [])


def test_documents_are_found_by_their_ids_be_they_many_or_few(data):
    every = {span.id: [span] for span in data.documents_between(0, data.tokens)}
    assert data.find_documents(every) == every
    for some in (["wiki-66"], ["news-1", "nobody"]):
        assert data.find_documents(some) == {one: every.get(one, []) for one in some}


def test_the_content_hash_ignores_the_place_and_sees_the_contents(tiny_shards, copied):
    first, second = DataSet.open(tiny_shards), DataSet.open(copied)
    assert first.sha256 == second.sha256
    change_index(copied, lambda index: index["shards"][0].update(sha256="0" * 64))
    assert DataSet.open(copied).sha256 != first.sha256


def test_a_folder_without_index_says_which_command_makes_one_and_a_cut_index_that_it_is_no_json(tmp_path):
    with pytest.raises(ShardError, match=r"no shards at all.*tools/prepare\.py"):
        DataSet.open(tmp_path)
    with pytest.raises(ShardError, match=r"nowhere has no index\.json"):
        DataSet.open(tmp_path / "nowhere")
    (tmp_path / "index.json").write_text('{"version"')
    with pytest.raises(ShardError, match="not JSON"):
        DataSet.open(tmp_path)


def test_a_tar_that_is_cut_or_missing_is_found_at_open(copied):
    tar = copied / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with pytest.raises(ShardError, match=r"shard-000001\.tar has \d+ bytes, index\.json says \d+: it was cut"):
        DataSet.open(copied)
    tar.unlink()
    with pytest.raises(ShardError, match=r"shard-000001\.tar is missing"):
        DataSet.open(copied)


def test_a_flipped_byte_is_found_by_verify(copied):
    tar = copied / "shard-000001.tar"
    raw = bytearray(tar.read_bytes())
    raw[len(raw) // 2] ^= 1
    tar.write_bytes(raw)
    data = DataSet.open(copied)
    with pytest.raises(ShardError, match=r"shard-000001\.tar: sha256 is"):
        data.verify()


def test_shards_of_another_tokenizer_are_refused(tiny_shards):
    with pytest.raises(ShardError, match=r"tokenizer\.sha256 is .* the tokenizer here is ffffffffffff"):
        DataSet.open(tiny_shards, "f" * 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: index.update(version=2), "version is 2, this megadec reads version 1"),
        (lambda index: index.update(format="other"), "format is 'other'"),
        (lambda index: index.update(dtype="int8"), "dtype is 'int8'"),
        (lambda index: index.update(tokens=7), "tokens is 7, the shards hold"),
        (lambda index: index.pop("shards"), "not whole: KeyError 'shards'"),
        (lambda index: index["tokenizer"].pop("bos_id"), "not whole: KeyError 'bos_id'"),
        (lambda index: index["shards"][0]["samples"].pop(), "samples do not add up"),
        (lambda index: index["shards"][0]["samples"][0].pop("tokens_offset"), "not whole: KeyError 'tokens_offset'"),
        (lambda index: index["shards"][0]["samples"][-1].update(tokens_offset=10**6), "offsets do not lie inside"),
        (lambda index: index.update(shards=[], tokens=0, documents=0), "tokens is 0, the shards hold 0"),
    ],
)
def test_an_index_that_is_not_whole_is_a_shard_error_that_says_why(copied, change, words):
    change_index(copied, change)
    with pytest.raises(ShardError, match=words):
        DataSet.open(copied)


def test_a_table_of_documents_that_is_not_readable_is_a_shard_error(copied):
    data = DataSet.open(copied)
    offset = data.index["shards"][0]["samples"][0]["documents_offset"]
    with open(copied / "shard-000000.tar", "r+b") as tar:
        tar.seek(offset)
        tar.write(b"\x00" * 20)
    for read in (lambda: data.documents_between(0, 10), lambda: data.find_documents(["nobody"])):
        with pytest.raises(ShardError, match="documents of sample 00000000 are not readable"):
            read()


def test_a_tar_whose_documents_lost_their_beginnings_is_named_by_a_plan_that_reads_it(copied, plan_cache):
    tar = copied / "shard-000001.tar"
    raw = bytearray(tar.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 4096] = bytes(4096)
    tar.write_bytes(raw)
    with pytest.raises(DamagedShardError, match=r"shard-000001\.tar: \d+ documents begin in the tokens of sample"):
        plan_windows(DataSet.open(copied), 64, "best_fit")
