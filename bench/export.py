"""What a conversion costs: seconds and memory of writing and of the comparison, beside DeepSpeed's zero_to_fp32.

    python -m bench.export [--quick true] [--rounds 3] [--parity full] [--folder FOLDER]

In: a preset and a folder on the disk to measure. A decoder with random weights is trained for a step under ZeRO and
saved twice, by DeepSpeed and by ours. Out: one JSON object. For each way (`zero_to_fp32`: DeepSpeed's script into a
pickle, which checks nothing; `hf`, `gguf`, `onnx`: ours, in float32) the median seconds of opening (every byte of the
checkpoint is compared with its hash there), of writing and of the comparison, and how much more memory than with its
libraries loaded a process held at most in each; then `bars`, with opening and writing together too. Every conversion
has a process of its own, and the ways take turns. Pages of mapped files count as memory.
"""

import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.measure import environment, fresh_process
from bench.trainers import Workload, engine_of, initial_values, task_of
from megadec.common.config import parse
from megadec.common.errors import ConfigError, run_main
from megadec.common.files import sha256_of
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.flops import parameter_count
from megadec.engine.checkpoint.checkpointer import AsyncCheckpointer
from megadec.engine.checkpoint.manifest import finalize
from megadec.engine.metrics.reports import Saved
from megadec.engine.runs.common import CheckpointOptions
from megadec.engine.step import train_step
from megadec.engine.zero.engine import start_process_group
from megadec.export.gguf.writer import check_gguf, write_gguf
from megadec.export.huggingface.export import MAX_SHARD_BYTES, check_hf, load_transformers, write_tokenizer
from megadec.export.onnx.export import check_onnx, write_model
from megadec.export.parity.compare import Mode
from megadec.export.read.huggingface_files import write_model as write_hf
from megadec.export.read.open_model import open_model
from megadec.export.read.source import ModelSource

PEER = "zero_to_fp32"
OURS = ("hf", "gguf", "onnx")
MAKE = "make"
SLOWEST, ROOM_BYTES = 1.5, 500_000_000
DEEPSPEED_FOLDER, STEP_FOLDER, TAG = "deepspeed", "step_00000001", "zero"


@dataclass(frozen=True)
class ExportBenchOptions(Workload):
    """rounds: conversions of each kind. parity: as of tools/convert.py. quick: a preset of ten million parameters and a
    round, for a look in minutes. tokenizer: of as many pieces as the preset has rows. folder: on which disk; a new one
    in the system's place for such things where none is given. alone: this way, in this process, in the folder.
    """

    preset: str | None = "124m"
    rows: int = 1
    sequence_length: int = 512
    rounds: int = 3
    parity: Mode = "full"
    quick: bool = False
    tokenizer: Path = Path("tokenizer/zh_32k/tokenizer.model")
    folder: Path | None = None
    alone: str | None = None

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"rounds={self.rounds} is not at least 1")
        if self.alone not in (None, MAKE, PEER, *OURS):
            raise ConfigError(f"alone={self.alone!r} is none of {', '.join((MAKE, PEER, *OURS))}")
        if self.quick:
            object.__setattr__(self, "preset", "10m")
            object.__setattr__(self, "rounds", 1)


def make(options: ExportBenchOptions, folder: Path) -> dict[str, Any]:
    """Train a step, and save as DeepSpeed does and as a run does."""
    ranks, shape = start_process_group(), options.shape
    engine = engine_of(task_of(options, initial_values(shape)), options, ranks)
    train_step(engine, [options.batch(0)], step=1, learning_rate=1e-4)
    engine._engine.save_checkpoint(str(folder / DEEPSPEED_FOLDER), tag=TAG, save_latest=False)
    tokenizer = Tokenizer.load(options.tokenizer)
    stated = {
        "step": 1, "tokens": options.step_tokens, "precision": "fp32", "task": {"kind": "language_model"},
        "shape": shape.to_dict(), "tokenizer": {"sha256": tokenizer.sha256},
    }  # fmt: skip

    def name(partial_folder: Path, final: Path, files: dict[str, Any], sums: Any) -> None:
        copy = Path(shutil.copyfile(options.tokenizer, partial_folder / TOKENIZER_FILE))
        files[TOKENIZER_FILE] = {"bytes": copy.stat().st_size, "sha256": sha256_of(copy)}
        finalize(partial_folder, final, {**stated, "files": files})

    saver = AsyncCheckpointer(engine.zero_state(), ranks, CheckpointOptions(asynchronous=False, retries=0))
    assert saver.start(Saved(folder / STEP_FOLDER, 1), {}, name, time.perf_counter()) is not None
    largest = max(math.prod(size) for size in task_of(options, initial_values(shape)).sizes.values())
    return {"parameters": parameter_count(shape), "largest_tensor_bytes": 4 * largest}


def measured(work: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and by how much the process's memory rose at most (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before, began = _memory_bytes("VmRSS"), time.perf_counter()
    work()
    return time.perf_counter() - began, _memory_bytes("VmHWM") - before


def _memory_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def convert_theirs(folder: Path, output: Path) -> dict[str, Any]:
    """DeepSpeed's own script, as a function, with its own defaults: tied tensors it cannot write as safetensors."""
    from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict

    convert = partial(convert_zero_checkpoint_to_fp32_state_dict, tag=TAG)
    seconds, rise = measured(lambda: convert(str(folder / DEEPSPEED_FOLDER), str(output)))
    return {"writing_seconds": seconds, "writing_bytes": rise}


def convert_ours(way: str, mode: Mode, folder: Path, output: Path) -> dict[str, Any]:
    """Open, write and compare, as `write_proven` does for tools/convert.py."""
    write, check = _load(way)
    began = time.perf_counter()
    source = open_model(folder / STEP_FOLDER)
    opening_seconds = time.perf_counter() - began

    def writing() -> None:
        output.mkdir()
        shutil.copyfile(source.tokenizer_path, output / TOKENIZER_FILE)
        write(output, Tokenizer.load(source.tokenizer_path), source)

    seconds, rise = measured(writing)
    parity_seconds, parity_rise = measured(lambda: check(output, source, mode))
    return {
        "opening_seconds": opening_seconds,
        "writing_seconds": seconds,
        "writing_bytes": rise,
        "parity_seconds": parity_seconds,
        "parity_bytes": parity_rise,
    }


def _load(
    way: str,
) -> tuple[Callable[[Path, Tokenizer, ModelSource], object], Callable[[Path, ModelSource, Mode], object]]:
    """Import what a way needs, and give its two halves."""
    if way == "hf":
        transformers = load_transformers()

        def write(folder: Path, tokenizer: Tokenizer, source: ModelSource) -> None:
            write_hf(source, folder, torch.float32, tokenizer, MAX_SHARD_BYTES)
            write_tokenizer(transformers, folder, source, tokenizer)

        return write, lambda folder, source, mode: check_hf(folder, source, torch.float32, mode)
    if way == "gguf":
        import cyllama.llama.llama_cpp  # noqa: F401
        import gguf  # noqa: F401 loaded before the memory is looked at

        return partial(write_gguf, dtype="float32"), lambda f, source, mode: check_gguf(f, source, "float32", mode)
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    return lambda f, _, source: write_model(f, source), lambda f, source, mode: check_onnx(f, source, parity=mode)


def bars(made: dict[str, Any], ways: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Of each of ours: seconds of writing over the peer's, and the rise of memory over what it may be."""
    allowed = 3 * made["largest_tensor_bytes"] + ROOM_BYTES
    found: dict[str, Any] = {"most_writing_over_zero_to_fp32": SLOWEST, "most_writing_bytes": allowed}
    for way in OURS:
        mine, peer = ways[way], ways[PEER]["writing_seconds"]
        over = mine["writing_seconds"] / peer
        found[way] = {
            "writing_over_zero_to_fp32": round(over, 3),
            "opening_and_writing_over_zero_to_fp32": round(over + mine["opening_seconds"] / peer, 3),
            "holds": over <= SLOWEST and mine["writing_bytes"] <= allowed,
        }
    return found


def main(argv: Sequence[str]) -> None:
    """JSON on standard output."""
    options = parse(ExportBenchOptions, argv, description="Seconds and memory of a conversion.")
    if options.alone:
        assert options.folder is not None, "only this module asks for it"
        output = options.folder / "output"
        if options.alone == MAKE:
            print(json.dumps(make(options, options.folder)))
        elif options.alone == PEER:
            print(json.dumps(convert_theirs(options.folder, output)))
        else:
            print(json.dumps(convert_ours(options.alone, options.parity, options.folder, output)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:

        def alone(way: str) -> dict[str, Any]:
            shutil.rmtree(Path(folder) / "output", ignore_errors=True)
            found: dict[str, Any] = fresh_process("bench.export", [*argv, "--folder", folder, "--alone", way], 1800)
            return found

        made = alone(MAKE)
        rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in (PEER, *OURS)}
        for number in range(options.rounds):
            for way in list(rounds)[:: 1 if number % 2 == 0 else -1]:
                rounds[way].append(alone(way))
    ways = {
        way: {key: round(statistics.median(one[key] for one in found), 3) for key in found[0]}
        for way, found in rounds.items()
    }
    facts = {"preset": options.preset, "parity": options.parity, "rounds": options.rounds, **made}
    print(json.dumps({"environment": environment(), **facts, "ways": ways, "bars": bars(made, ways)}, indent=1))


if __name__ == "__main__":
    run_main(main)
