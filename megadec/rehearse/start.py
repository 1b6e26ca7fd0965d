"""One start of a run by the deepspeed launcher: the user's run, scaled down, seen from outside; and its end.

It trains on links to the user's shards, in a folder of its own; a damaged shard is a copy in place of a link, so the
user's own files are only ever read. Everything that the launcher has started is in one session, by which it is found
and ended. What a run is doing is concluded from its files, as a user would, so that the run is the one that users have,
without a hook for rehearsals.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from megadec.common.config import to_yaml
from megadec.common.errors import TrainingError
from megadec.common.files import storage_errors, write_json
from megadec.common.processes import free_port, session_of
from megadec.common.tokenizer import Tokenizer
from megadec.data.shard_folders import LocalFolder, open_folder
from megadec.data.sharding import check_groups
from megadec.engine.checkpoint.manifest import checkpoints_in
from megadec.engine.early_stopping import EarlyStopping
from megadec.engine.metrics.options import FILE_NAME, MetricsOptions
from megadec.engine.runs.common import CHECKPOINTS
from megadec.engine.runs.pretrain import ModelOptions, Run
from megadec.engine.zero.settings import read_settings
from megadec.rehearse.disturbances import ALL_RANKS, EVALUATE_EVERY, LAUNCHER, SAVE_EVERY, Disturbance, RehearsalOptions

LOOK_SECONDS = 0.001
END_LOOK_SECONDS = 0.2  # looking through all processes takes its time
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
STARTING = "while it started"
# A file may get so large when the disk is to refuse: metrics and manifests of some sort fit, weights do not.
REFUSED_BYTES = 20_000
REFUSAL = "The state stays in memory"
SMALL_HEAD, SMALL_LAYERS, SMALL_INTERMEDIATE = 16, 2, 64
WARMUP_STEPS, WINDOWS, MICRO_BATCH_SIZE = 5, 8, 1
# Of a shard that is cut so much is left.
KEPT_FRACTION = 0.6


@dataclass(frozen=True)
class Scene:
    """The files of a rehearsal: `run` as the launcher takes it, the DeepSpeed files, and where shards can be damaged.

    shards: the links to the tars of training, all of them.
    """

    run: Run
    run_file: Path
    deepspeed_files: tuple[Path, ...]
    shards: tuple[Path, ...]

    @property
    def undisturbed(self) -> Path:
        """The folder of the run that nothing happens to; the other's is `run.folder`."""
        return self.run.folder.with_name("undisturbed")


def make_scene(run: Run, deepspeed: Path, options: RehearsalOptions, folder: Path) -> Scene:
    """Write what the launcher needs into `folder`. Raises ConfigError for a run or options that cannot be."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        scaled = scale(run, options)
        data = replace(scaled.data, train=_linked(run, folder / "shards"))
        scaled = replace(scaled, output_folder=str(folder / "runs"), data=data)
        run_file = folder / "run.yaml"
        run_file.write_text(to_yaml(scaled), encoding="utf-8")
        files = []
        for number, file in enumerate((deepspeed, *options.other_deepspeed)):
            files.append(folder / f"deepspeed-{number}-{file.name}")
            write_json(files[-1], _scaled_settings(file, options))
    return Scene(scaled, run_file, tuple(files), tuple(sorted(folder.glob("shards/*/*/*.tar"))))


def scale(run: Run, options: RehearsalOptions) -> Run:
    """The run with few steps, short sequences, a small batch that every number of ranks divides, and often a save."""
    shared_by = run.train.sequence_parallel_size
    for ranks in options.all_ranks:
        check_groups(ranks, shared_by)
    sequence_length = min(options.sequence_length, run.data.sequence_length)
    train = replace(
        run.train,
        steps=options.run_steps,
        stop_at_step=None,
        global_batch_size=2 * MICRO_BATCH_SIZE * math.lcm(*(ranks // shared_by for ranks in options.all_ranks)),
        micro_batch_size=MICRO_BATCH_SIZE,
    )
    windows, micro = min(run.evaluate.windows, WINDOWS), MICRO_BATCH_SIZE
    return replace(
        run,
        name="disturbed",
        model=run.model if options.own_model else _small(run, sequence_length),
        data=replace(run.data, sequence_length=sequence_length, bad_shards=0),
        train=train,
        schedule=replace(run.schedule, warmup_steps=min(run.schedule.warmup_steps, WARMUP_STEPS)),
        evaluate=replace(run.evaluate, interval_steps=EVALUATE_EVERY, windows=windows, micro_batch_size=micro),
        checkpoint=replace(run.checkpoint, interval_steps=SAVE_EVERY, keep_every=0, resume="auto"),
        metrics=MetricsOptions(tensorboard=False),
        early_stopping=EarlyStopping(),  # it would end the run before the disturbances are through
    )


def _small(run: Run, sequence_length: int) -> ModelOptions:
    """A small model of the same kind: what it computes with is kept, what it holds is not."""
    own = run.model.decoder_shape(Tokenizer.load(run.tokenizer)) if run.model.init_from is None else None
    heads = 2 * run.train.sequence_parallel_size
    shared = own is None or own.kv_heads < own.heads
    small = {
        "hidden_size": heads * SMALL_HEAD,
        "layers": SMALL_LAYERS,
        "heads": heads,
        "kv_heads": heads // 2 if shared else heads,
        "head_size": SMALL_HEAD,
        "intermediate_size": SMALL_INTERMEDIATE,
        "max_position_embeddings": sequence_length,
    }
    return replace(run.model, init_from=None, shape={**run.model.shape, **small})


def _scaled_settings(file: Path, options: RehearsalOptions) -> dict[str, Any]:
    """The DeepSpeed file; a small model's parameters are partitioned too, which stage 3 leaves out by default."""
    values = read_settings(file)
    zero = values.get("zero_optimization", {})
    if not options.own_model and zero.get("stage") == 3:
        zero["stage3_param_persistence_threshold"] = 0
    return values


def _linked(run: Run, folder: Path) -> dict[str, float]:
    """Folders of links in place of the run's own, by weight; addresses stay as they are."""
    train = {}
    for number, (name, weight) in enumerate(run.data.train.items()):
        place = open_folder(name, run.data.cache)
        if not isinstance(place, LocalFolder):
            train[name] = weight
            continue
        place.read_index()  # says so where there is none
        links = folder / str(number) / place.name
        links.mkdir(parents=True)
        for file in place.path.resolve().iterdir():
            (links / file.name).symlink_to(file)
        train[str(links)] = weight
    return train


@contextlib.contextmanager
def damaged(link: Path, *, cut: bool) -> Iterator[None]:
    """A copy that was cut, or has one flipped byte, stands in place of a link to a shard."""
    source = link.resolve()
    copy = link.with_name(f".{link.name}.damaged")
    shutil.copyfile(source, copy)
    size = copy.stat().st_size
    if cut:
        os.truncate(copy, int(size * KEPT_FRACTION))
    else:
        np.memmap(copy, mode="r+")[size // 2] ^= 1
    copy.replace(link)
    try:
        yield
    finally:
        link.unlink()
        link.symlink_to(source)


Pace = Mapping[str, float]
"""Seconds that a start takes to its first step, and a step, a save, an evaluation, by Moment."""


class NotSeenError(TrainingError):
    """What a rehearsal waits for has not come."""


class Attempt:
    """A run that was started. A context manager: whatever is left of it is gone at the end.

    command: the script and its options. run_folder: where its metrics will be. log: gets its output.
    """

    def __init__(
        self, command: Sequence[str], ranks: int, run_folder: Path, log: Path, patience_seconds: float
    ) -> None:
        self.log, self.checkpoints = log, run_folder / CHECKPOINTS
        self._script, self._patience, self._metrics = command[0], patience_seconds, run_folder / FILE_NAME
        self._before = frozenset(_whole_lines(self._metrics))
        environment = _environment()
        launcher = shutil.which("deepspeed", path=environment["PATH"])
        if launcher is None:
            raise TrainingError("there is no command deepspeed on PATH, which starts the ranks: pip install deepspeed")
        self._process = subprocess.Popen(
            [launcher, "--num_accelerators", str(ranks), "--master_port", str(free_port()), *command],
            env=environment,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # A pipe and not a file: a limit on the size of files, by which the disk is made to refuse, is not for it.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *_: object) -> None:
        while living := session_of(self._process.pid):
            for process in living:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(LOOK_SECONDS)
        self._process.wait()
        self._reader.join()

    @property
    def launcher(self) -> psutil.Process:
        """The leader of the session."""
        return psutil.Process(self._process.pid)

    @property
    def output(self) -> str:
        """What the run has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind that this start has added to metrics.jsonl so far."""
        return [line for line in read_lines(self._metrics, self._before) if line["kind"] == kind]

    def ranks(self) -> list[psutil.Process]:
        """The living training processes, by rank."""
        found = {}
        for process in session_of(self._process.pid):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if len(words) > 3 and words[2] == self._script and words[3].startswith("--local_rank="):
                    found[int(words[3].partition("=")[2])] = process
        return [found[number] for number in sorted(found)]

    def saving(self) -> set[str]:
        """The checkpoints that are being written now, by their hidden names."""
        return {path.name for path in self.checkpoints.glob(".step_*")}

    def evaluating(self) -> bool:
        """Whether the last step was one to evaluate after, and its evaluation is not there yet."""
        trained = self.lines("train")
        if not trained or trained[-1]["step"] % EVALUATE_EVERY:
            return False
        return all(line["step"] != trained[-1]["step"] for line in self.lines("evaluate"))

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Until the condition holds. Raises NotSeenError when the run has ended, or patience has."""
        deadline = time.monotonic() + self._patience
        while not condition():
            if time.monotonic() > deadline:
                raise NotSeenError(f"{what} did not come in {self._patience:g} s")
            if self._process.poll() is not None and not condition():
                raise NotSeenError(f"the run ended with {self._process.returncode} before {what}")
            time.sleep(LOOK_SECONDS)

    def wait_for_end(self) -> tuple[int, float]:
        """Until every process is gone: the launcher's exit status and how many seconds it took.

        Raises NotSeenError when patience has ended; what is left is killed on leaving.
        """
        began = time.monotonic()
        while self._process.poll() is None or session_of(self._process.pid):
            if time.monotonic() > began + self._patience:
                left = ", ".join(str(process.pid) for process in session_of(self._process.pid))
                raise NotSeenError(f"processes {left} were still there after {self._patience:g} s")
            time.sleep(END_LOOK_SECONDS)
        self._reader.join()
        return self._process.wait(), time.monotonic() - began

    def wait_for_step(self) -> None:
        """Until the first step of this start is done."""
        self.wait(lambda: self.lines("train"), "the first step")

    def pace(self, seconds_to_first_step: float) -> Pace:
        """How long things took in this run, in the median, so that a moment in a later start can be hit."""
        evaluations: dict[int, float] = {}
        for line in self.lines("evaluate"):
            evaluations[line["step"]] = evaluations.get(line["step"], 0.0) + line["seconds"]
        return {
            "start": seconds_to_first_step,
            "step": statistics.median(line["seconds"] for line in self.lines("train")),
            "save": statistics.median(line["seconds"] for line in self.lines("checkpoint")),
            "evaluation": statistics.median(evaluations.values() or [0.0]),
        }

    def _read(self) -> None:
        assert self._process.stdout is not None
        with open(self.log, "wb", buffering=0) as file, self._process.stdout as stream:
            shutil.copyfileobj(stream, file)


def read_lines(path: Path, before: Collection[bytes] = ()) -> list[dict[str, Any]]:
    """The lines of a metrics file, none where there is no file. before: lines of earlier starts, which are left out.

    A start first puts a file without the lines of lost steps in place of the one before; a step that is done again
    takes another time, which makes its line another.
    """
    return [json.loads(line) for line in _whole_lines(path) if line not in before]


def _whole_lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _environment() -> dict[str, str]:
    """Ours, for ranks on the CPU over gloo that do not fight for cores."""
    inherited = {key: value for key, value in os.environ.items() if key not in LAUNCHER_VARIABLES}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
    threads = inherited.get("OMP_NUM_THREADS", "1")
    return {**inherited, "PATH": path, "OMP_NUM_THREADS": threads, "DS_ACCELERATOR": "cpu"}


def disturb(start: Attempt, what: Disturbance, pace: Pace) -> str:
    """Wait for the moment, do to the run what is due, and return where in the run it was.

    That is seen in the run's files around the stroke; between the look and the signal it goes on for a fraction of a
    millisecond. Raises NotSeenError when the moment never came.
    """
    if what.moment == "before":
        return "before the start" if what.kind else ""
    if what.moment == "start":
        time.sleep(what.fraction * pace["start"])
        return _strike(start, what, start.ranks())
    start.wait_for_step()
    ranks = start.ranks()  # looked up beforehand: it takes longer than a save
    start.wait(lambda: checkpoints_in(start.checkpoints), "the first checkpoint")
    if what.moment == "save":
        start.wait(lambda: len(start.lines("checkpoint")) >= what.after, f"{what.after} saves")
    under_way: dict[str, Callable[[], object]] = {
        "step": lambda: len(start.lines("train")) >= what.after,
        "save": start.saving,
        "evaluation": start.evaluating,
    }
    start.wait(under_way[what.moment], f"the {what.moment}")
    time.sleep(what.fraction * pace[what.moment])
    start.wait(under_way[what.moment], f"the {what.moment}")  # it may be over
    return _strike(start, what, ranks) if what.kind in ("kill", "stop") else _refuse(start, what, ranks)


def _strike(start: Attempt, what: Disturbance, ranks: list[psutil.Process]) -> str:
    """Kill the victims, or ask one of them to stop."""
    victims = _victims(start, what, ranks)
    evaluating, saving = start.evaluating(), start.saving()
    for process in victims if what.kind == "kill" else victims[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL if what.kind == "kill" else signal.SIGTERM)
    if saving & start.saving():
        return "in a save"
    if evaluating:
        return "in an evaluation"
    return "in a step" if start.lines("train") else STARTING


def _refuse(start: Attempt, what: Disturbance, ranks: list[psutil.Process]) -> str:
    """Let the disk refuse what these ranks write; if for a while: until one has said so, then a save and an end."""
    limits = [(process, process.rlimit(psutil.RLIMIT_FSIZE)) for process in _victims(start, what, ranks)]
    for process, (_, most) in limits:
        process.rlimit(psutil.RLIMIT_FSIZE, (REFUSED_BYTES, most))
    if what.kind == "full disk for a while":
        start.wait(lambda: REFUSAL in start.output, "a refusal")
        for process, former in limits:
            process.rlimit(psutil.RLIMIT_FSIZE, former)
        saves = len(start.lines("checkpoint"))
        start.wait(lambda: len(start.lines("checkpoint")) > saves, "a save after the disk had room")
        with contextlib.suppress(psutil.NoSuchProcess):
            ranks[0].terminate()
    return "in a save"


def _victims(start: Attempt, what: Disturbance, ranks: list[psutil.Process]) -> list[psutil.Process]:
    """The launcher where it is meant, and where there are no ranks yet."""
    groups: dict[int, list[psutil.Process]] = {LAUNCHER: [], ALL_RANKS: ranks}
    return groups.get(what.victim, ranks[what.victim : what.victim + 1]) or [start.launcher]
