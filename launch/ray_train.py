"""Pretrain a decoder on the workers of a Ray cluster: the loop, files and losses of launch/pretrain.py.

python launch/ray_train.py --deepspeed ds_configs/zero3.json --config launch/runs/NAME.yaml --workers 2 [--gpus]
    [--address HOST:PORT] [--max_failures 3] [--section.key value ...]

In come a run's options and Ray's own (`RayOptions`), out come metrics and checkpoints in the run's folder. A worker
that is lost is replaced: Ray ends the others, starts all anew, and they go on from the newest whole checkpoint. Every
checkpoint is reported to Ray by reference: `Result.checkpoint.path` is runs/NAME/checkpoints/step_N itself; nothing is
copied. The project folder, shards and runs lie on a file system that every node sees under the same path; relative
paths start from the folder of this command. Which checkpoints exist is decided by the run's folder
(checkpoint.keep_last), not by Ray, so that Ray and the deepspeed launcher can take turns with one run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from megadec.common.config import from_dict, parse, take_options, to_dict
from megadec.common.errors import ConfigError, MegadecError, MissingExtraError, TrainingError, run_main
from megadec.common.log import logger

if TYPE_CHECKING:
    from megadec.engine.metrics.reports import Saved
    from megadec.engine.runs.pretrain import Run

CONNECT_SECONDS = 5.0
# Ray asks for the workers' places anew this often while lost ones wait for room.
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


@dataclass(frozen=True)
class RayOptions:
    """What Ray is asked for.

    `address`: HOST:PORT of a cluster's head; left out, the cluster of this job or machine, or one made for this run.
    `gpus`: one for each worker. `max_failures`: so often lost workers are replaced. `placement_seconds`: how long to
    wait for room at the start; `replacement_seconds`: how long, all in all, when workers are to be replaced.
    """

    workers: int = 1
    address: str | None = None
    gpus: bool = False
    cpus_per_worker: float = 1.0
    max_failures: int = 3
    placement_seconds: float = 10.0
    replacement_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"--workers={self.workers} is not at least 1")
        if self.cpus_per_worker <= 0:
            raise ConfigError(f"--cpus_per_worker={self.cpus_per_worker} is not above 0")
        for name in ("max_failures", "placement_seconds", "replacement_seconds"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name}={getattr(self, name)} is negative")

    @property
    def worker_resources(self) -> dict[str, float]:
        """What one worker occupies, in Ray's words."""
        return {"CPU": self.cpus_per_worker, **({"GPU": 1.0} if self.gpus else {})}


def main(argv: Sequence[str]) -> None:
    """Arguments in, the engine's loop on every worker, nothing out: results are in the run's folder."""
    names = [field.name for field in fields(RayOptions)]
    bare = [f"{argument}=true" if argument == "--gpus" else argument for argument in argv]
    taken, rest = take_options(bare, ("deepspeed", *names))
    from megadec.engine.runs.pretrain import Run

    run = parse(Run, rest, description=__doc__ or "", program="launch/ray_train.py")
    options = parse(RayOptions, [f"--{name}={taken[name]}" for name in names if name in taken], description="")
    if "deepspeed" not in taken:
        raise ConfigError("--deepspeed FILE is missing; ds_configs/README.md says which one when")
    check_request(run, Path(taken["deepspeed"]), options.workers)
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    connect(options.address)
    find_room(options)
    train_on_cluster(run, Path(taken["deepspeed"]), options)


def check_request(run: Run, deepspeed_file: Path, workers: int) -> None:
    """Open the run as each of its workers will, so that a wrong request costs no worker. Raises MegadecError."""
    from megadec.export.read.initial import open_pretraining

    os.environ["WORLD_SIZE"] = str(workers)
    try:
        open_pretraining(run, deepspeed_file)
    finally:
        del os.environ["WORLD_SIZE"]


def connect(address: str | None) -> None:
    """Join a Ray cluster. Raises MissingExtraError, ConfigError (nobody answers at the address)."""
    try:
        import ray
        import ray.train
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None and address.startswith("ray://"):
        raise ConfigError(
            f"--address={address} is Ray's client port; give HOST:PORT of the head (`ray start` prints it), or run the"
            " whole command on the cluster with launch/submit.py"
        )
    if address is not None and ":" in address:
        # Ray itself waits for half a minute, and then ends the process without an exception.
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--address={address}: no Ray cluster answers there ({error})") from error
    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--address={address or 'auto'}: {' '.join(str(error).split())}") from error


def find_room(options: RayOptions) -> None:
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


def train_on_cluster(run: Run, deepspeed_file: Path, options: RayOptions) -> None:
    """Start the workers, replace them when one is lost, and wait for the end. Raises MegadecError."""
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from megadec.engine.checkpoint.manifest import checkpoints_in

    (run.folder / SNAPSHOT).unlink(missing_ok=True)
    # Plain data: Ray reads it before a worker knows its rank, and what it imported then would take itself for rank 0.
    order = {
        "run": to_dict(run),
        "deepspeed": str(deepspeed_file),
        "folder": str(Path.cwd()),
        "known": [path.name for path in checkpoints_in(run.checkpoints)],
    }
    trainer = TorchTrainer(
        work,
        train_loop_config=order,
        # Ray makes the process group: only then does every worker of a node see all GPUs of the node's workers, which
        # is what a local rank counts; and Ray leaves the group when it replaces the workers.
        torch_config=TorchConfig(backend="nccl" if options.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=options.workers, use_gpu=options.gpus, resources_per_worker=options.worker_resources
        ),
        # To a type checker RunConfig and FailureConfig are those of Ray Train's first version.
        run_config=RunConfig(  # type: ignore[call-arg]
            name=run.name,
            storage_path=str(Path(run.output_folder).absolute()),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=options.max_failures,
                controller_failure_limit=int(options.replacement_seconds // START_SECONDS),
            ),
            # Ray removes nothing: a step that is saved twice, before and after a loss, has one folder and two entries.
            checkpoint_config=CheckpointConfig(num_to_keep=None),
            callbacks=[_failure_watch(options.max_failures)],
            # What goes wrong is said once, by us.
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    try:
        with stop_file_for_signals(run):
            trainer.fit()
    except TrainingFailedError as error:
        raise _as_ours(error, options) from error
    except SystemExit as error:  # Ray ends the process with 0 when Ctrl-C has ended the training
        raise TrainingError("interrupted; the same command goes on from the last checkpoint") from error


@contextlib.contextmanager
def stop_file_for_signals(run: Run) -> Iterator[None]:
    """SIGTERM and SIGUSR1 to this command, which trains nothing itself, become the run's file `stop`.

    The workers see it, save, and end; the command then ends with 0. Ctrl-C stays Ray's, which ends the workers at once.
    """
    from megadec.engine.health.preemption import STOP_FILE

    def tell(number: int, frame: FrameType | None) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / STOP_FILE).touch()

    former = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def listen_for_signals() -> None:
    """Have this worker's main thread, where Ray runs what an actor is asked for, listen for signals on our behalf."""
    import ray

    from megadec.engine.health.preemption import listen_in_main_thread

    ray.get(ray.get_runtime_context().current_actor.execute.remote(listen_in_main_thread))


def work(order: dict[str, Any]) -> None:
    """What a worker does: the engine's loop, with every checkpoint reported to Ray.

    order: the run, DeepSpeed's file, the folder where relative paths begin, the checkpoints there were before.
    """
    try:
        os.chdir(order["folder"])
    except OSError as error:
        raise ConfigError(
            f"{order['folder']} cannot be entered on node {socket.gethostname()} ({error.strerror}): the project folder"
            " must lie on a file system that every node sees"
        ) from error
    # Ray's account of each report goes past the level that it was given.
    logging.getLogger().setLevel(logging.WARNING)
    from megadec.engine.checkpoint.manifest import checkpoints_in
    from megadec.engine.loop import train
    from megadec.engine.ranks import lost_ranks
    from megadec.engine.runs.pretrain import Run
    from megadec.export.read.initial import open_pretraining

    listen_for_signals()
    run = from_dict(Run, order["run"])
    # A worker that replaces a lost one goes on from what this command has saved, whatever the first was told.
    newer = {path.name for path in checkpoints_in(run.checkpoints)} - set(order["known"])
    if newer or run.checkpoint.resume == "none":
        run = replace(run, checkpoint=replace(run.checkpoint, resume="auto"))
    try:
        job = open_pretraining(run, Path(order["deepspeed"]))
    except MegadecError as error:  # the same request was good where the command was given
        raise ConfigError(f"on node {socket.gethostname()}: {error}") from error
    with lost_ranks("training"):
        train(replace(job, saved=report))


def report(saved: Saved) -> None:
    """Tell Ray of a checkpoint where it lies. Collective."""
    from ray import train

    train.report(
        {"step": saved.step, "tokens": saved.tokens, "loss": saved.loss},
        checkpoint=train.Checkpoint.from_directory(str(saved.path.absolute())),
        checkpoint_upload_mode=train.CheckpointUploadMode.NO_UPLOAD,
        delete_local_checkpoint_after_upload=False,
    )


def _failure_watch(max_failures: int) -> Any:
    """Says which workers were lost, and ends the run at once when the request is what is wrong."""
    from ray.train import UserCallback

    class FailureWatch(UserCallback):
        failures = 0

        def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
            self.failures += 1
            rank, error = _first_cause(worker_exceptions)
            if isinstance(error, MegadecError) and error.exit_status == ConfigError.exit_status:
                raise error
            goes_on = f"restart {self.failures} of {max_failures}" if self.failures <= max_failures else "given up"
            logger(__name__).warning("rank %d was lost (%s); %s", rank, _one_line(error), goes_on)

    return FailureWatch()


def _first_cause(failures: Mapping[int, Exception]) -> tuple[int, Exception]:
    """The failure that brought the others about: the peers of a lost worker end with a TrainingError."""
    return min(failures.items(), key=lambda item: (isinstance(item[1], TrainingError), item[0]))


def _as_ours(error: Exception, options: RayOptions) -> Exception:
    """The error that a person can do something about; a defect of ours keeps Ray's error with its traceback."""
    inner = getattr(error, "controller_failure", None)
    if inner is not None:
        if isinstance(inner, MegadecError):
            return inner
        return TrainingError(f"Ray could not start or keep {options.workers} worker(s): {_one_line(inner)}")
    rank, cause = _first_cause(getattr(error, "worker_failures", {0: error}))
    if isinstance(cause, MegadecError):
        return cause
    if type(cause).__module__.startswith("ray."):
        return TrainingError(
            f"rank {rank} was lost once more than --max_failures={options.max_failures} ({_one_line(cause)}); the same"
            " command goes on from the last checkpoint"
        )
    return error


def _one_line(error: Exception) -> str:
    # Of a worker that does not answer Ray first prints all it knows about the worker, and then what happened.
    happened = getattr(error, "health_check_failure", error)
    return " ".join(str(happened).split())[:300]


if __name__ == "__main__":
    run_main(main)
