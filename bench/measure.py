"""How the benchmarks measure: alternating rounds, medians, peak memory of fresh processes, and what the machine can do.

In: functions to time, or a module to run as a process. Out: plain values for JSON. A script here is run as a module
from the repository's root, `python -m bench.NAME`, so that it finds this one. Cases take turns within a round, so that
what else the machine does falls on all of them alike, which warms caches less than one at a time.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from megadec.common.errors import TrainingError
from megadec.engine.train_options import Precision

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "deepspeed", "transformers", "triton", "liger-kernel", "flash-attn")


def device() -> torch.device:
    """The first CUDA device, or the CPU where there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def environment() -> dict[str, Any]:
    """Versions, machine, thread count and commit: what has to stand beside a figure."""
    return {
        "versions": {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def seconds_of(run: Callable[[], object], calls: int = 1) -> float:
    """Seconds of one call, the mean of `calls`, until the device has done what it was given."""
    synchronize()
    began = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize()
    return (time.perf_counter() - began) / calls


def synchronize() -> None:
    """Wait until the device is done; a CPU always is."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alternate(
    cases: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 1, calls: int = 1
) -> dict[str, list[float]]:
    """Seconds of one call of each case in each round. In a round every case has its turn, in reverse every other round.

    warm_up: rounds that are not counted. calls: a case's turn is so many calls, whose mean is taken (short ones).
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(warm_up + rounds):
        for name in list(cases)[:: 1 if number % 2 else -1]:
            spent = seconds_of(cases[name], calls)
            if number >= warm_up:
                seconds[name].append(spent)
    return seconds


def summary(seconds: Mapping[str, Sequence[float]], baseline: str | None = None) -> dict[str, dict[str, float]]:
    """For each case the median, least and largest seconds, and the spread: (third - first quartile) / median.

    With `baseline`, `speed_ratio`: the median over rounds of baseline's seconds / the case's in that round; more is
    faster than the baseline.
    """
    table: dict[str, dict[str, float]] = {}
    for name, values in seconds.items():
        middle = statistics.median(values)
        row = {"median_seconds": middle, "least_seconds": min(values), "largest_seconds": max(values)}
        quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [middle] * 3
        row["spread"] = (quartiles[2] - quartiles[0]) / middle
        if baseline is not None:
            row["speed_ratio"] = statistics.median(
                theirs / ours for theirs, ours in zip(seconds[baseline], values, strict=True)
            )
        table[name] = {key: float(f"{value:.4g}") for key, value in row.items()}
    return table


def fresh_process(module: str, arguments: Sequence[str], timeout_seconds: float = 600) -> Any:
    """What `python -m module arguments` prints last on standard output, read as JSON.

    For peak memory (`megadec.engine.metrics.device.peak_memory_bytes` in the new process), which never goes down again.
    Raises TrainingError with the end of what it said when it fails or takes too long.
    """
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise TrainingError(f"{' '.join(command)} took longer than {timeout_seconds:.0f} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise TrainingError(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(lines[-1])


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def product_flops(precision: Precision, limit_seconds: float = 5.0) -> float:
    """Floating-point operations a second of a square matrix product on random numbers, the best of some rounds.

    Of the largest size, up to 2048 on a CPU and 8192 on a GPU, whose rounds are expected to end within `limit_seconds`:
    a CPU without bf16 instructions takes 20 seconds for one bf16 product of 2048.
    """
    where, rounds, warm_up = device(), 9, 3
    size, largest = 256, 8192 if where.type == "cuda" else 2048
    while True:
        left, right = (torch.randn(size, size, device=where).to(DTYPES[precision]) for _ in range(2))
        spent = min(seconds_of(lambda: left @ right) for _ in range(2))  # noqa: B023 called at once
        if size == largest or 8 * spent * (warm_up + rounds) > limit_seconds:
            break
        size *= 2
    seconds = alternate({"product": lambda: left @ right}, rounds, warm_up=warm_up)["product"]
    return 2 * size**3 / min(seconds)


def clone_bytes_per_second(size_bytes: int | None = None, rounds: int = 9) -> float:
    """Bytes read and written a second by a clone of a large tensor, the best of some rounds."""
    where = device()
    size_bytes = size_bytes or (2**31 if where.type == "cuda" else 2**28)
    source: Tensor = torch.randn(size_bytes // 4, device=where)
    target = torch.empty_like(source)
    seconds = alternate({"clone": lambda: target.copy_(source)}, rounds, warm_up=3)["clone"]
    return 2 * size_bytes / min(seconds)


def top_operations(run: Callable[[], object], rows: int = 25, timeline: Path | None = None) -> list[dict[str, Any]]:
    """The operations of one call that cost most by torch's profiler: name, calls, own milliseconds, share of all.

    timeline: a .json.gz file for the whole profile, which chrome://tracing and Perfetto show.
    """
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, acc_events=True) as trace:
        seconds_of(run)
    if timeline is not None:
        trace.export_chrome_trace(str(timeline))
    averages = trace.key_averages()
    own = {id(one): one.self_device_time_total if cuda else one.self_cpu_time_total for one in averages}
    total = sum(own.values()) or 1.0
    best = sorted(averages, key=lambda one: -own[id(one)])[:rows]
    return [
        {
            "name": one.key[:120],
            "calls": one.count,
            "milliseconds": round(own[id(one)] / 1e3, 3),
            "share": round(own[id(one)] / total, 4),
        }
        for one in best
    ]


def package_version(name: str) -> str | None:
    """What is installed of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """The checkout, as git describes it; None in a copy without its history, as on a lent machine."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
