"""On a CPU a process keeps the memory that it freed and takes its part of the cores, unless its user says otherwise."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from megadec.engine.zero.cpu import keep_freed_memory, share_cores

PROGRAM = """
import ctypes, resource
from megadec.engine.zero.cpu import keep_freed_memory
kept = keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def use():
    block = libc.malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 2**26 // 4096


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_a_block_that_was_freed_is_taken_again_without_the_systems_help() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    kept, faults = map(int, done.stdout.split())
    assert kept == 1
    assert faults < PAGES / 10


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_says_of_memory_stands(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "131072")
    assert not keep_freed_memory()


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "ranks", "threads"), [(8, 1, 8), (8, 2, 4), (7, 2, 3), (2, 4, 1)])
def test_a_rank_computes_with_its_share_of_the_cores_and_at_least_one(monkeypatch, cores, ranks, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert share_cores(ranks) == threads


def test_what_the_environment_says_of_threads_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(3)
    assert share_cores(1) == 3
