"""A training step of ours beside its peers: speed in turns, peak memory, losses, share of what the machine can do.

    python -m bench.step [--rounds 5] [--names ours ours_compiled transformers plain] [--preset 1b ...]

In: a Qwen3 shape (28 million parameters when nothing is said), a batch and a DeepSpeed file. Out: one JSON object: for
each trainer of bench/trainers.py a row with seconds and tokens a second, peak memory, speed and memory against
transformers under the same DeepSpeed file, losses, share of the machine's measured product in the same precision, and
the operations that cost most; a trainer that cannot run here has the reason instead. Each trainer is a process of its
own. On a CPU all live at once and step in turns; on a GPU, where they would not fit beside each other, they run one
after another. What waits holds memory but no core, so a machine needs the memory of all of them together.
"""

import contextlib
import json
import os
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.measure import ROOT, device, environment, product_flops, summary
from bench.trainers import IN_PRECISION, NAMES, PLAIN_LOOPS, TrainerOptions, Workload
from megadec.common.config import parse, to_dict, to_yaml
from megadec.common.errors import ConfigError, TrainingError, run_main
from megadec.common.ranks import PLACE
from megadec.decoder.flops import model_flops, parameter_count
from megadec.engine.train_options import resolve_precision

BASELINE = "transformers"
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class StepOptions(Workload):
    """names: which trainers; ours_bf16 and ours_fp32, in these precisions whatever `precision` says, only when named.
    rounds: steps of each that are timed. limit_seconds: no round begins after so long.

    profiled: give each trainer's most expensive operations, of one more step. timelines: a folder for the whole profile
    of that step of each, NAME.json.gz, which Perfetto shows.
    """

    names: tuple[str, ...] = NAMES
    rounds: int = 7
    limit_seconds: float = 480
    profiled: bool = True
    timelines: Path | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in (*NAMES, *IN_PRECISION):
                raise ConfigError(f"names: {name!r} is none of {', '.join((*NAMES, *IN_PRECISION))}")
        if self.rounds < 1:
            raise ConfigError(f"rounds={self.rounds} is not at least 1")
        if self.timelines is not None and not self.profiled:
            raise ConfigError("timelines are those of a profile: leave profiled=false out")


class Worker:
    """A trainer in a process of its own that steps when it is told to."""

    def __init__(self, name: str, options: StepOptions, folder: Path) -> None:
        values = {field.name: getattr(options, field.name) for field in fields(Workload)}
        timeline = None if options.timelines is None else options.timelines.absolute() / f"{name}.json.gz"
        request = TrainerOptions(**values, name=name, steps=0, profiled=options.profiled, timeline=timeline)
        file = folder / f"{name}.yaml"
        file.write_text(to_yaml(request), encoding="utf-8")
        self.name = name
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.peak_bytes = 0
        self.operations: list[dict[str, Any]] = []
        self._log = folder / f"{name}.log"
        with open(self._log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.trainers", "--config", str(file)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Without a launcher each is a group of one, on a port of its own.
                env={name: value for name, value in os.environ.items() if name not in PLACE},
            )

    def step(self, count: int, until: float) -> list[float]:
        """Seconds of each of `count` steps. Raises TrainingError when it ends or is not done at the time `until`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise TrainingError(self._last_words()) from error
        answer = self._answer(until)
        self.losses += answer["losses"]
        self.peak_bytes = answer["peak_bytes"]
        seconds: list[float] = answer["seconds"]
        return seconds

    def finish(self, until: float) -> None:
        """Let it profile a step if it shall, and end. Raises TrainingError as `step` does."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        line = self._line(until)
        self.operations = json.loads(line) if line else []
        self._process.wait(timeout=60)

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _answer(self, until: float) -> Any:
        line = self._line(until)
        if not line:
            raise TrainingError(self._last_words())
        return json.loads(line)

    def _line(self, until: float) -> str:
        """The next line that is JSON, or nothing at its end; libraries speak on standard output too."""
        stream = self._process.stdout
        assert stream is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise TrainingError("it was not done in time")
                line = stream.readline()
                if not line or line.startswith(("{", "[{")):
                    return line

    def _last_words(self) -> str:
        self._process.wait(timeout=60)
        lines = self._log.read_text(encoding="utf-8").strip().splitlines() or ["it ended without a word"]
        return lines[-1][-500:].removeprefix("error: ")


@dataclass(frozen=True)
class Trial:
    """What came of all workers: those that ran, and why the others did not."""

    done: list[Worker]
    skipped: dict[str, str]


def run_trial(options: StepOptions, together: bool) -> Trial:
    """Warm up and time all trainers: in turns when all live at once, else one after the other."""
    trial = Trial([], {})
    with tempfile.TemporaryDirectory() as folder:
        groups = [options.names] if together else [(name,) for name in options.names]
        for names in groups:
            until = time.monotonic() + options.limit_seconds / len(groups)
            with _workers(names, options, Path(folder)) as workers:
                _run_group(workers, options, until, trial)
    return trial


@contextlib.contextmanager
def _workers(names: Sequence[str], options: StepOptions, folder: Path) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    try:
        for name in names:
            workers.append(Worker(name, options, folder))
        yield workers
    finally:
        for worker in workers:
            worker.kill()


def _run_group(workers: Sequence[Worker], options: StepOptions, until: float, trial: Trial) -> None:
    # One at a time: a compiler that works beside a timed step would be timed with it.
    ready = [worker for worker in workers if _attempt(worker, trial, lambda w: w.step(WARM_UP_STEPS, until))]
    for number in range(options.rounds):
        if time.monotonic() > until and number:
            break
        for worker in ready[:: 1 if number % 2 else -1]:
            if not _attempt(worker, trial, lambda w: w.seconds.extend(w.step(1, until + options.limit_seconds))):
                ready.remove(worker)
    for worker in ready:
        if _attempt(worker, trial, lambda w: w.finish(time.monotonic() + 120)):
            trial.done.append(worker)


def _attempt(worker: Worker, trial: Trial, act: Any) -> bool:
    try:
        act(worker)
    except TrainingError as error:
        trial.skipped[worker.name] = str(error)
        return False
    return True


def report(options: StepOptions, trial: Trial, product: float) -> dict[str, Any]:
    """The rows, and how ours stands to its peers."""
    shape, tokens = options.shape, options.step_tokens
    flops = model_flops(shape, tokens, options.rows * options.sequence_length**2)
    workers = {worker.name: worker for worker in trial.done}
    base = workers.get(BASELINE)
    rounds = min(len(worker.seconds) for worker in trial.done)
    table = summary({name: worker.seconds[:rounds] for name, worker in workers.items()}, BASELINE if base else None)
    rows: dict[str, Any] = {}
    for name, worker in workers.items():
        seconds = table[name]["median_seconds"]
        rows[name] = {
            **table[name],
            "tokens_per_second": round(tokens / seconds, 1),
            "share_of_product": round(flops / seconds / product, 4),
            "peak_bytes": worker.peak_bytes,
            "memory_ratio": round(worker.peak_bytes / base.peak_bytes, 4) if base else None,
            "loss_difference": _difference(worker, base) if base else None,
            "losses": [round(loss, 5) for loss in worker.losses[:8]],
            "operations": worker.operations,
        }
    return {
        "shape": shape.to_dict() | {"parameters": parameter_count(shape)},
        "precision": resolve_precision(options.precision),
        "step_tokens": tokens,
        "step_flops": flops,
        "product_flops_per_second": product,
        "rows": rows,
        "skipped": trial.skipped,
        "bars": _against_peers(workers) | _bf16_against_fp32(workers),
    }


def _difference(worker: Worker, base: Worker) -> float:
    """The largest difference of a loss to the baseline's of the same step, as a share of it."""
    pairs = zip(worker.losses, base.losses, strict=False)
    return max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)


def _against_peers(workers: dict[str, Worker]) -> dict[str, Any]:
    """Our faster row against transformers and against the faster plain loop, as medians over the rounds."""
    ours = [workers[name] for name in ("ours", "ours_compiled") if name in workers]
    if not ours:
        return {}
    best = min(ours, key=lambda worker: statistics.median(worker.seconds))
    found: dict[str, Any] = {"ours": best.name}
    loops = [workers[name] for name in PLAIN_LOOPS if name in workers]
    peers = {"transformers": workers.get(BASELINE), "best_plain_loop": min(loops, key=_median, default=None)}
    for name, peer in peers.items():
        if peer is not None:
            ratios = (theirs / mine for theirs, mine in zip(peer.seconds, best.seconds, strict=False))
            found[f"speed_against_{name}"] = round(statistics.median(ratios), 4)
            found[f"memory_against_{name}"] = round(best.peak_bytes / peer.peak_bytes, 4)
    return found


def _bf16_against_fp32(workers: dict[str, Worker]) -> dict[str, Any]:
    """How long a step of ours takes in bf16, as a multiple of one in fp32, and how far the losses stand apart."""
    if not IN_PRECISION.keys() <= workers.keys():
        return {}
    bf16, fp32 = (workers[name] for name in IN_PRECISION)
    return {
        "bf16_seconds_over_fp32": round(_median(bf16) / _median(fp32), 4),
        "bf16_loss_difference": _difference(bf16, fp32),
    }


def _median(worker: Worker) -> float:
    return statistics.median(worker.seconds)


def main(argv: Sequence[str]) -> None:
    """Measure the product, run the trainers, print the report."""
    options = parse(StepOptions, argv, description="A training step of ours beside its peers.")
    if options.timelines is not None:
        options.timelines.mkdir(parents=True, exist_ok=True)
    product = product_flops(resolve_precision(options.precision))
    trial = run_trial(options, together=device().type == "cpu")
    if not trial.done:
        raise TrainingError(f"no trainer could run: {trial.skipped}")
    result = {"bench": "step", "environment": environment(), "options": to_dict(options)}
    print(json.dumps(result | report(options, trial, product), indent=1))


if __name__ == "__main__":
    run_main(main)
