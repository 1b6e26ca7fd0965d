"""Pretrains a decoder on the workers of a Ray cluster: the loop, files and losses of launch/pretrain.py.

A worker that is lost is replaced: Ray ends the others, starts all anew, and they go on from the newest whole
checkpoint. Every checkpoint is reported to Ray by reference: `Result.checkpoint.path` is the run's own
checkpoints/step_N. Which checkpoints exist is decided by the run's folder (checkpoint.keep_last), so Ray and the
deepspeed launcher can take turns with one run.
"""

import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType

from megadec.common.config import parse, to_dict
from megadec.common.errors import ConfigError, TrainingError, check_range
from megadec.common.files import may_fail, storage_errors
from megadec.common.log import logger
from megadec.engine.checkpoint.manifest import checkpoints_in
from megadec.engine.health.preemption import STOP_FILE, STOP_SIGNALS
from megadec.engine.runs.pretrain import PretrainRun
from megadec.pretrain.command import open_pretraining
from megadec.ray.connect import connect
from megadec.ray.failures import failure_watch, to_megadec_error
from megadec.ray.worker import work

# Ray looks for room for the workers again this often while lost ones wait for it.
START_SECONDS = 60
# Ray keeps its own list of checkpoints in the run's folder, and refuses to start when one of them is gone.
SNAPSHOT = "checkpoint_manager_snapshot.json"
ENVIRONMENT = {
    # Else each line of a worker is printed twice.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # How often Ray looks after its workers, in seconds; it takes in one report a look, so 2 (Ray's own) slows saving.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START_SECONDS),
    # The loop does nothing about a node that is about to go (a signal to any worker stops the run): Ray need not watch.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

log = logger(__name__)


@dataclass(frozen=True)
class RayRun(PretrainRun):
    """A run, and what Ray is asked for.

    deepspeed: its DeepSpeed file. workers: processes that train together. address: HOST:PORT of a cluster's head; left
    out, the cluster of this job or machine, or one made for this run. gpus: one for each worker. cpus_per_worker: cores
    that Ray sets aside for each. max_failures: so often lost workers are replaced. placement_seconds: how long to wait
    for room at the start. replacement_seconds: how long, all in all, when workers are to be replaced.
    """

    deepspeed: Path | None = None
    workers: int = 1
    address: str | None = None
    gpus: bool = False
    cpus_per_worker: float = 1.0
    max_failures: int = 3
    placement_seconds: float = 10.0
    replacement_seconds: float = 600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "--", "workers", least=1)
        check_range(self, "--", "cpus_per_worker", above=0)
        check_range(self, "--", "max_failures", "placement_seconds", "replacement_seconds", least=0)

    @property
    def run(self) -> PretrainRun:
        """The run alone."""
        return PretrainRun(**{field.name: getattr(self, field.name) for field in fields(PretrainRun)})

    @property
    def worker_resources(self) -> dict[str, float]:
        """What one worker occupies, in Ray's words."""
        return {"CPU": self.cpus_per_worker, **({"GPU": 1.0} if self.gpus else {})}


def main(argv: Sequence[str]) -> None:
    """Pretrain a decoder on the workers of a Ray cluster; the project folder, shards and runs lie on a file system that
    every node sees under the same path."""
    options = parse(RayRun, argv, description=main.__doc__ or "", program="launch/ray_train.py")
    if options.deepspeed is None:
        raise ConfigError("--deepspeed FILE is missing; ds_configs/README.md says which one when")
    check_request(options.run, options.deepspeed, options.workers)
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    connect(options.address, "ray.train")
    find_room(options)
    train_on_cluster(options)


def check_request(run: PretrainRun, deepspeed_file: Path, workers: int) -> None:
    """Open the run as each of its workers will, so that a wrong request costs no worker. Raises MegadecError."""
    os.environ["WORLD_SIZE"] = str(workers)
    try:
        open_pretraining(run, deepspeed_file)
    finally:
        del os.environ["WORLD_SIZE"]


def find_room(options: RayRun) -> None:
    """Ask the cluster for all places at once, and give them back. Raises ConfigError when they do not come in time.

    Ray Train alone would wait for ever. Only the scheduler knows what fits: it sees what other jobs hold, that a worker
    needs its resources on one node, and nodes that an autoscaler adds.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    wanted = options.worker_resources
    places = placement_group([wanted] * options.workers, strategy="PACK")
    found = places.wait(options.placement_seconds)
    has, free, nodes = ray.cluster_resources(), ray.available_resources(), [n for n in ray.nodes() if n["Alive"]]
    remove_placement_group(places)
    if not found:
        raise ConfigError(
            f"no room for --workers={options.workers}, each with {_listed(wanted, wanted)} on one node, within"
            f" --placement_seconds={options.placement_seconds:g}: the cluster of {len(nodes)} node(s) has"
            f" {_listed(has, wanted)} ({_listed(free, wanted)} free)"
        )


def _listed(amounts: Mapping[str, float], names: Mapping[str, float]) -> str:
    return " and ".join(f"{amounts.get(name, 0):g} {name}" for name in names)


def train_on_cluster(options: RayRun) -> None:
    """Start the workers, replace them when one is lost, and wait for the end. Raises MegadecError."""
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    run, name = options.run, ray_name(options.run)
    (run.folder / SNAPSHOT).unlink(missing_ok=True)
    trainer = TorchTrainer(
        work,
        train_loop_config={
            "run": to_dict(run),
            "deepspeed": str(options.deepspeed),
            "folder": str(Path.cwd()),
            "ray_folder": str(run.folder.absolute().with_name(name)),
            "known": [path.name for path in checkpoints_in(run.checkpoints)],
        },
        # Ray makes the process group: only then does every worker of a node see all GPUs of the node's workers, which
        # is what a local rank counts; and Ray leaves the group when it replaces the workers.
        torch_config=TorchConfig(backend="nccl" if options.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=options.workers, use_gpu=options.gpus, resources_per_worker=options.worker_resources
        ),
        # To a type checker RunConfig and FailureConfig are those of Ray Train's first version.
        run_config=RunConfig(  # type: ignore[call-arg]
            name=name,
            storage_path=str(Path(run.output_folder).absolute()),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=options.max_failures,
                controller_failure_limit=int(options.replacement_seconds // START_SECONDS),
            ),
            # Ray removes nothing: a step that is saved twice, before and after a loss, has one folder and two entries.
            checkpoint_config=CheckpointConfig(num_to_keep=None),
            callbacks=[failure_watch(options.max_failures)],
            # Errors are reported once, by us.
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    # In a thread of its own, where Ray cannot take Ctrl-C: it would end the workers before they have saved.
    fitting = Fitting(trainer.fit)
    try:
        with stop_file_for_signals(run):
            fitting.wait()
    except TrainingFailedError as error:
        raise to_megadec_error(error, options.workers, options.max_failures) from error
    except KeyboardInterrupt as error:
        raise TrainingError("interrupted twice; the same command goes on from the last checkpoint") from error


class Fitting(threading.Thread):
    """A call that runs in a thread which no exit waits for."""

    def __init__(self, fit: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._fit = fit
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Of the thread itself."""
        try:
            self._fit()
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        """Until the call has returned; raises what it has raised."""
        self.join()
        if self._error is not None:
            raise self._error


def ray_name(run: PretrainRun) -> str:
    """The run's name for Ray, which wants ASCII: where it is not, that of a link beside the run's folder, through which
    Ray finds the checkpoints. Raises StorageError."""
    if run.name.isascii():
        return run.name
    alias = f".ray-{hashlib.sha256(run.name.encode()).hexdigest()[:16]}"
    link = run.folder.with_name(alias)
    with storage_errors(link):
        run.folder.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(run.name)
    return alias


@contextlib.contextmanager
def stop_file_for_signals(run: PretrainRun) -> Iterator[None]:
    """SIGTERM, SIGUSR1 and Ctrl-C to this command, which trains nothing itself, become the run's file `stop`.

    The workers see it, save, and end; the command then ends with 0. A second Ctrl-C ends the command, and with it the
    workers, at once.
    """

    def tell(number: int, frame: FrameType | None) -> None:
        with may_fail(f"{run.folder / STOP_FILE} was not made, so the workers do not hear of it"):
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / STOP_FILE).touch()
            log.info("%s: the workers finish the step under way and save", signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    former = {number: signal.signal(number, tell) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
