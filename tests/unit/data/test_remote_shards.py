"""A set behind an address is the set: fetched whole, checked, tried again, in a folder that stays within its bounds."""

import errno
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError, ShardError
from megadec.data.dataset import DataSet
from megadec.data.shard_cache import DamagedShardError, ShardCache, ShardCacheOptions
from megadec.data.shard_folders import open_folder
from tests.support.remote_shards import FaultyFileSystem, upload

ADDRESS = "faulty://bucket/tiny"


@pytest.fixture
def remote(tiny_shards: Path) -> FaultyFileSystem:
    return upload(tiny_shards, ADDRESS)


@pytest.fixture
def cache(tmp_path: Path) -> ShardCacheOptions:
    return ShardCacheOptions(folder=str(tmp_path / "cache"), attempts=3, pause_seconds=0.001)


def kept(cache: ShardCacheOptions) -> list[str]:
    return sorted(path.name for path in cache.path.iterdir() if not path.name.startswith(".lock-"))


def read_all(data: DataSet) -> list[int]:
    return data.tokens_at(0, data.tokens).tolist()


def bytes_of_tars(cache: ShardCacheOptions) -> int:
    return sum(path.stat().st_size for path in cache.path.glob("*.tar"))


def test_a_remote_set_gives_the_tokens_documents_and_identity_of_the_local_one(remote, cache, tiny_shards):
    there, here = DataSet.open(ADDRESS, cache=cache), DataSet.open(tiny_shards)
    assert remote.reads == []
    assert (there.sha256, there.name) == (here.sha256, "tiny")
    assert read_all(there) == read_all(here)
    assert there.documents_between(0, there.tokens) == here.documents_between(0, here.tokens)
    shards = here.index["shards"]
    assert kept(cache) == sorted(f"{shard['sha256']}.tar" for shard in shards)
    assert sorted(remote.reads) == [shard["name"] for shard in shards]
    there.verify()
    remote.reads.clear()
    read_all(DataSet.open(ADDRESS, cache=cache))
    assert remote.reads == [], "a second run fetches nothing"


@pytest.mark.parametrize("fault", ["refused", "cut", "flipped", "broken"])
def test_a_fetch_that_fails_is_tried_again_and_only_a_right_tar_gets_a_name(remote, cache, fault, tiny_shards):
    remote.faults += [fault, fault]
    data = DataSet.open(ADDRESS, cache=cache)
    assert data.tokens_at(0, 10).tolist() == DataSet.open(tiny_shards).tokens_at(0, 10).tolist()
    assert remote.reads == ["shard-000000.tar"] * 3
    assert kept(cache) == [f"{data.index['shards'][0]['sha256']}.tar"]


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("refused", ShardError, r"ConnectionResetError: connection reset by peer, in each of 3 attempt"),
        ("flipped", DamagedShardError, r"bytes with sha256 .* the index says .* in each of 3 attempt"),
    ],
)
def test_the_error_after_the_last_attempt_names_the_address_and_what_was_found(remote, cache, fault, kind, words):
    remote.faults += [fault] * 3
    data = DataSet.open(ADDRESS, cache=cache)
    with pytest.raises(ShardError, match=rf"^faulty://bucket/tiny/shard-000000\.tar: .*{words}") as raised:
        data.tokens_at(0, 10)
    assert type(raised.value) is kind
    assert not list(cache.path.glob("*.tar"))
    assert not list(cache.path.glob(".*.partial"))


def test_a_tar_that_came_damaged_to_the_end_is_looked_at_first_by_the_next_start(remote, cache, caplog):
    remote.faults += ["flipped"] * 3
    with pytest.raises(DamagedShardError):
        DataSet.open(ADDRESS, cache=cache).tokens_at(0, 10)
    remote.faults += ["flipped"] * 3
    with pytest.raises(DamagedShardError, match=r"shard-000000\.tar"):
        DataSet.open(ADDRESS, cache=cache)
    assert DataSet.open(ADDRESS, cache=cache).skipped == {}
    assert not list(cache.path.glob("*.damaged"))


def test_what_is_missing_or_cut_there_is_found_at_open(remote, cache):
    remote.pipe_file("/bucket/tiny/shard-000001.tar", b"x" * 100)
    with pytest.raises(DamagedShardError, match=r"faulty://bucket/tiny/shard-000001\.tar has 100 bytes"):
        DataSet.open(ADDRESS, cache=cache)
    remote.rm("/bucket/tiny/shard-000001.tar")
    with pytest.raises(DamagedShardError, match=r"shard-000001\.tar is missing"):
        DataSet.open(ADDRESS, cache=cache)
    assert set(DataSet.open(ADDRESS, cache=cache, skip_damaged=True).skipped) == {1}


def test_the_folder_stays_within_its_bytes_and_loses_what_was_not_used_for_longest(remote, cache, tiny_shards):
    shards = DataSet.open(tiny_shards).index["shards"]
    assert len(shards) > 3
    sizes = [shard["bytes"] for shard in shards]
    small = ShardCacheOptions(folder=cache.folder, bytes=sizes[0] + sizes[1] + sizes[2])
    data = DataSet.open(ADDRESS, cache=small)
    starts = [sum(shard["tokens"] for shard in shards[:number]) for number in range(len(shards))]
    for number in (0, 1, 2):
        data.tokens_at(starts[number], 5)
    again = DataSet.open(ADDRESS, cache=small)
    again.tokens_at(starts[0], 5)  # used again: now the second is the oldest
    again.tokens_at(starts[3], 5)
    names = {number: f"{shards[number]['sha256']}.tar" for number in range(4)}
    assert names[0] in kept(small)
    assert names[3] in kept(small)
    assert names[1] not in kept(small)
    assert read_all(data) == read_all(DataSet.open(tiny_shards))
    assert bytes_of_tars(small) <= small.bytes


def test_other_files_in_the_folder_are_neither_counted_nor_removed(remote, cache, tiny_shards):
    cache.path.mkdir()
    others = {"shard-000000.tar": b"x" * 10**6, "holiday.tar": b"y", ".notes.partial": b"z"}
    for name, content in others.items():
        (cache.path / name).write_bytes(content)
    largest = max(shard["bytes"] for shard in DataSet.open(tiny_shards).index["shards"])
    data = DataSet.open(ADDRESS, cache=ShardCacheOptions(folder=cache.folder, bytes=largest))
    assert read_all(data) == read_all(DataSet.open(tiny_shards))
    assert {name: (cache.path / name).read_bytes() for name in others} == others
    assert len(kept(cache)) == len(others) + 1


def test_a_shard_that_gets_its_name_while_room_is_made_counts_all_the_same(remote, cache, tiny_shards, monkeypatch):
    shards = DataSet.open(tiny_shards).index["shards"]
    first, second = (shards[number] for number in (0, 1))
    limit = first["bytes"] + second["bytes"] - 1  # not both
    data = DataSet.open(ADDRESS, cache=ShardCacheOptions(folder=cache.folder, bytes=limit))
    partial = cache.path / f".{first['sha256']}.partial"
    whole = cache.path / f"{first['sha256']}.tar"
    cache.path.mkdir(exist_ok=True)
    partial.write_bytes(b"x" * first["bytes"])  # another rank fetches it, and holds its lock
    own = ShardCache(ShardCacheOptions(folder=cache.folder))
    look = ShardCache._files
    looks = []

    def look_and_rename(self, pattern):
        found = list(look(self, pattern))
        looks.append(pattern)
        if len(looks) == 2 and partial.exists():  # after the leftovers: between the two lists that are counted
            partial.rename(whole)
        return iter(found)

    monkeypatch.setattr(ShardCache, "_files", look_and_rename)
    with own._locked(own._lock_of(first["sha256"])):
        data.tokens_at(first["tokens"], 5)
    assert bytes_of_tars(cache) <= limit


def test_a_local_shard_whose_disk_refuses_is_damaged_like_any_other(tiny_shards, monkeypatch):
    place = open_folder(tiny_shards)
    shard = DataSet.open(tiny_shards).index["shards"][0]

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("megadec.data.shard_folders.sha256_of", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    assert place.examine(shard, "hashes") == f"{tiny_shards / shard['name']} cannot be read: Input/output error"
    with pytest.raises(DamagedShardError, match="cannot be read: Input/output error"):
        place.open(shard)


def test_a_tar_that_was_cut_or_changed_in_the_folder_is_fetched_again(remote, cache, tiny_shards):
    data = DataSet.open(ADDRESS, cache=cache)
    tar = cache.path / f"{data.index['shards'][0]['sha256']}.tar"
    data.tokens_at(0, 5)
    raw = tar.read_bytes()
    tar.write_bytes(raw[:-1])
    DataSet.open(ADDRESS, cache=cache).tokens_at(0, 5)
    assert tar.read_bytes() == raw
    tar.write_bytes(b"\x00" * len(raw))
    DataSet.open(ADDRESS, cache=cache).verify()
    assert tar.read_bytes() == raw


def test_threads_that_want_one_shard_at_once_fetch_it_once(remote, cache, tiny_shards):
    sets = [DataSet.open(ADDRESS, cache=cache) for _ in range(8)]
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda data=data: found.append(read_all(data))) for data in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(remote.reads) == len(sets[0].index["shards"])
    assert found == [read_all(DataSet.open(tiny_shards))] * 8


def test_what_a_killed_process_left_is_removed_and_its_lock_is_free(remote, cache):
    program = """
import io, os, sys
from megadec.data.shard_cache import RemoteShard, ShardCache, ShardCacheOptions

class Killing(io.BytesIO):
    def read(self, size):
        return os.kill(os.getpid(), 9) if self.tell() else super().read(4)

shard = RemoteShard("x://y", "ab" * 32, 5000, lambda: Killing(b"half of it"))
ShardCache(ShardCacheOptions(folder=sys.argv[1])).open(shard)
"""
    done = subprocess.run([sys.executable, "-c", program, str(cache.path)], check=False)
    assert done.returncode == -9
    assert kept(cache) == [f".{'ab' * 32}.partial"]
    data = DataSet.open(ADDRESS, cache=cache)
    data.tokens_at(0, 5)
    assert kept(cache) == [f"{data.index['shards'][0]['sha256']}.tar"]


def test_a_set_behind_http_is_read_without_a_listing(cache, tiny_shards):
    pytest.importorskip("aiohttp")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Quiet(*a, directory=str(tiny_shards))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            data = DataSet.open(f"http://127.0.0.1:{server.server_port}", cache=cache)
            assert read_all(data) == read_all(DataSet.open(tiny_shards))
        finally:
            server.shutdown()
            thread.join()


def test_an_address_without_index_or_of_no_known_kind_says_so(remote, cache):
    with pytest.raises(ShardError, match=r"faulty://bucket/none/index\.json is missing"):
        DataSet.open("faulty://bucket/none", cache=cache)
    remote.pipe_file("/bucket/broken/index.json", b"{")
    with pytest.raises(ShardError, match=r"faulty://bucket/broken/index\.json is not JSON"):
        DataSet.open("faulty://bucket/broken", cache=cache)
    with pytest.raises(ConfigError, match=r"nosuch://bucket: fsspec cannot read it here"):
        DataSet.open("nosuch://bucket", cache=cache)


@pytest.mark.parametrize("wrong", [{"bytes": 0}, {"attempts": 0}, {"pause_seconds": -1.0}])
def test_options_that_cannot_be_are_refused_by_their_key(wrong):
    [key] = wrong
    with pytest.raises(ConfigError, match=rf"data\.cache\.{key}="):
        ShardCacheOptions(**wrong)
