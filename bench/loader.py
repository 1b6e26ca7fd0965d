"""What the loader costs: tokens a second from shards in the page cache, beside other loaders, and the time of a seek.

    python -m bench.loader --data shards/zhwiki [--sequence_length 1024] [--rows 32] [--output FILE]

In: a folder of shards. Out: one JSON object. Every loader reads the same documents and gives the same windows (joined
documents, cut every sequence_length) as the same batches, made by `megadec.data.batch`: ids, targets, weights,
positions, documents. `ours` takes the windows in its shuffled order; the others read from front to back, which is the
easiest for them. webdataset reads a document a sample (its usual layout) and, as `webdataset_on_our_shards`, our own
tars; mosaicml-streaming reads a window a sample (the usual layout for language models). One process and no workers, for
more processes multiply all of them alike.
"""

import json
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.loader_peers import (
    Batches,
    missing_mosaic,
    mosaic_batches,
    webdataset_of_blocks,
    webdataset_of_documents,
)
from bench.measure import alternate, environment, package_version, summary
from megadec.common.config import parse, to_dict
from megadec.common.errors import ConfigError, TrainingError, run_main
from megadec.common.files import write_json
from megadec.corpus.shards import FORMAT, INDEX_NAME, VERSION
from megadec.data.batch import TokenBatch
from megadec.data.dataset import DataSet
from megadec.data.prefetch import Prefetcher
from megadec.data.stream import TrainStream

OURS = "ours"
SEEK_WINDOW = 10_000_000
SEEK_SHARD_BLOCKS = 256
SEEK_BLOCK_TOKENS = 2**19
# What the project wants of itself: the least ratio of the peer's seconds to ours, tokens a second, seconds of a seek.
LEAST_RATIOS = {"webdataset": 5.0, "webdataset_on_our_shards": 1.0, "mosaicml_streaming": 1.5}
LEAST_TOKENS_PER_SECOND = 20e6
LONGEST_SEEK_SECONDS = 0.1


@dataclass(frozen=True)
class LoaderOptions:
    """data: a folder of shards. rows: of a batch. rounds: in which each loader goes through all windows once. seeks:
    fresh streams that are asked for window 10,000,000. output: a file for the result, beside standard output.
    """

    data: Path
    sequence_length: int = 1024
    rows: int = 32
    rounds: int = 7
    seeks: int = 9
    output: Path | None = None

    def __post_init__(self) -> None:
        for name in ("sequence_length", "rows", "rounds", "seeks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not at least 1")


def loaders(data: DataSet, folder: Path, options: LoaderOptions) -> tuple[dict[str, Batches], dict[str, str]]:
    """Each loader as a function that goes once through all windows, and why others are left out."""
    sizes = options.sequence_length, options.rows
    stream = TrainStream([(data, 1.0)], options.sequence_length, "cut", seed=0, global_batch_size=options.rows)
    steps = -(-stream.windows_per_epoch // options.rows)

    def ahead() -> Iterator[TokenBatch]:
        with Prefetcher(stream.batch, 0, steps) as batches:
            for [batch] in batches:
                assert isinstance(batch, TokenBatch)
                yield batch

    cases: dict[str, Batches] = {
        OURS: lambda: (stream.batch(step)[0] for step in range(steps)),
        "ours_in_a_thread_ahead": ahead,
        "webdataset": webdataset_of_documents(data, folder, *sizes),
        "webdataset_on_our_shards": webdataset_of_blocks(data, *sizes),
    }
    reason = missing_mosaic()
    if reason is None:
        cases["mosaicml_streaming"] = mosaic_batches(data, folder, *sizes)
    return cases, {} if reason is None else {"mosaicml_streaming": reason}


def check_same_windows(cases: Mapping[str, Batches], windows: int) -> None:
    """Raise TrainingError unless every loader gives the same windows, whatever their order."""
    found = {name: sorted(_checksums(run())[:windows]) for name, run in cases.items()}
    for name, sums in found.items():
        if sums != found[OURS]:
            raise TrainingError(f"{name} gives {len(sums)} other windows than ours ({len(found[OURS])})")


def _checksums(batches: Iterator[TokenBatch]) -> list[int]:
    return [
        zlib.crc32(torch.cat([tensor[row].view(torch.uint8) for tensor in batch.tensors()]).numpy().tobytes())
        for batch in batches
        for row in range(len(batch.ids_BS))
    ]


def _exhaust(run: Batches) -> Callable[[], None]:
    def go() -> None:
        for _ in run():
            pass

    return go


def write_sparse_set(folder: Path, windows: int, sequence_length: int) -> None:
    """A data set of at least so many windows that takes no room: an index, and tars that are holes."""
    block_bytes = SEEK_BLOCK_TOKENS * 2
    blocks = -(-(windows * sequence_length + 1) // SEEK_BLOCK_TOKENS)
    shards: list[dict[str, Any]] = []
    for first in range(0, blocks, SEEK_SHARD_BLOCKS):
        count = min(SEEK_SHARD_BLOCKS, blocks - first)
        samples = [
            {"key": f"{first + n:08d}", "tokens": SEEK_BLOCK_TOKENS, "tokens_offset": n * block_bytes}
            | {"documents": 1, "documents_offset": 0, "documents_bytes": 0}
            for n in range(count)
        ]
        name = f"shard-{len(shards):06d}.tar"
        with open(folder / name, "wb") as tar:
            tar.truncate(count * block_bytes)
        totals = {"bytes": count * block_bytes, "tokens": count * SEEK_BLOCK_TOKENS, "documents": count}
        shards.append({"name": name, "sha256": f"{len(shards):064x}", **totals, "samples": samples})
    tokenizer = {"sha256": "0" * 64, "vocabulary_size": 2**15, "bos_id": 1, "eos_id": 2}
    totals = {key: sum(shard[key] for shard in shards) for key in ("tokens", "documents")}
    described = {"format": FORMAT, "version": VERSION, "pipeline_version": "0", "tokenizer": tokenizer}
    empty = {"characters": 0, "sources": {}, "licences": [], "report": {}}
    write_json(folder / INDEX_NAME, {**described, "dtype": "uint16", **totals, **empty, "shards": shards})


def measure_seek(options: LoaderOptions) -> dict[str, Any]:
    """Median and largest seconds to open a set of over 10,000,000 windows, and to its first batch from there."""
    opened, sought = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_sparse_set(Path(folder), SEEK_WINDOW + options.rows, options.sequence_length)
        for seed in range(options.seeks):
            began = time.perf_counter()
            data = DataSet.open(folder)
            stream = TrainStream([(data, 1.0)], options.sequence_length, "cut", seed, options.rows)
            ready = time.perf_counter()
            stream.batch(SEEK_WINDOW // options.rows)
            sought.append(time.perf_counter() - ready)
            opened.append(ready - began)
    return {
        "window": SEEK_WINDOW,
        "windows": stream.windows_per_epoch,
        "blocks": data.blocks,
        "open_seconds": round(statistics.median(opened), 5),
        "seek_seconds": round(statistics.median(sought), 5),
        "largest_seek_seconds": round(max(sought), 5),
    }


def measure(options: LoaderOptions) -> dict[str, Any]:
    """All figures. Raises ShardError, and TrainingError when the loaders do not give the same windows."""
    torch.set_num_threads(1)
    data = DataSet.open(options.data)
    windows = -(-(data.tokens - 1) // options.sequence_length)
    with tempfile.TemporaryDirectory() as folder:
        cases, skipped = loaders(data, Path(folder), options)
        check_same_windows(cases, windows)
        seconds = alternate({name: _exhaust(run) for name, run in cases.items()}, options.rounds)
    table = summary(seconds)
    for row in table.values():
        row["tokens_per_second"] = round(windows * options.sequence_length / row["median_seconds"])
        row["ours_is_faster_by"] = round(row["median_seconds"] / table[OURS]["median_seconds"], 3)
    seek = measure_seek(options)
    return {
        "bench": "loader",
        "environment": environment(),
        "options": to_dict(replace(options, output=None)),
        "tokens": data.tokens,
        "documents": data.documents,
        "windows": windows,
        "loaders": table,
        "peers": {name: package_version(name) for name in ("webdataset", "mosaicml-streaming")},
        "skipped": skipped,
        "seek": seek,
        "aims_met": _aims(table, seek),
    }


def _aims(table: Mapping[str, Mapping[str, float]], seek: Mapping[str, Any]) -> dict[str, bool]:
    met = {name: table[name]["ours_is_faster_by"] >= least for name, least in LEAST_RATIOS.items() if name in table}
    met["tokens_per_second"] = table[OURS]["tokens_per_second"] >= LEAST_TOKENS_PER_SECOND
    met["seek"] = seek["seek_seconds"] < LONGEST_SEEK_SECONDS
    return met


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print."""
    options = parse(LoaderOptions, argv, description="Time the loader and others on the same documents.")
    result = measure(options)
    if options.output is not None:
        write_json(options.output, result)
    print(json.dumps(result))


if __name__ == "__main__":
    run_main(main)
