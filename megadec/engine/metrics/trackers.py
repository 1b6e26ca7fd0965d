"""Where a run's figures go beside metrics.jsonl: TensorBoard, Weights & Biases, SwanLab.

In: numbers by name and a step, on rank 0. Out: what each library writes or sends. A library is imported when a run asks
for it, and its own environment variables (keys, addresses, proxies) are left to it; only whether it may use a network
is a setting here, since a cluster without one would wait for it.
"""

import contextlib
import hashlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from megadec.common.errors import MissingExtraError
from megadec.common.log import logger
from megadec.common.ranks import is_first
from megadec.engine.metrics.options import MetricsOptions

log = logger(__name__)

TENSORBOARD_FOLDER = "tensorboard"
STEP_METRIC = "step"


class Service(NamedTuple):
    """Where a service's key may be: variables (the last names a server of one's own, which may want another), and files
    in the form of ~/.netrc with an entry for the host."""

    variables: tuple[str, ...]
    files: tuple[str, ...]
    host: str


SERVICES = {
    "wandb": Service(
        ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"), ("$NETRC", "~/.netrc", "~/_netrc"), "wandb"
    ),
    "swanlab": Service(
        ("SWANLAB_API_KEY", "SWANLAB_API_HOST"),
        ("$SWANLAB_SAVE_DIR/.netrc", "~/.swanlab/.netrc", ".swanlab/.netrc"),
        "swanlab",
    ),
}


class Tracker(Protocol):
    """One place that figures go to."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Figures by name, as `train/loss`. Steps may come again or late: a save is told of when it is whole."""

    def close(self) -> None:
        """Write or send what is left."""


def check_trackers(options: MetricsOptions) -> None:
    """Say at the opening of a run which service it will not reach for want of a key, so that it is written offline.

    Raises MissingExtraError for a library that the options ask for and that is not installed.
    """
    for name in SERVICES:
        if not getattr(options, name):
            continue
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, name)
        if not options.offline and not has_key(name) and is_first():
            log.warning(
                f"metrics.{name}: this machine has no key for it (set {SERVICES[name].variables[0]} or `{name} login`),"
                f" so its figures stay in the run's folder {name}, from where `{name} sync` sends them"
            )


def has_key(service: str) -> bool:
    """Whether this machine has a key for the service: in a variable, or where its login writes one."""
    known = SERVICES[service]
    files = (os.path.expandvars(os.path.expanduser(file)) for file in known.files)
    return any(map(os.environ.get, known.variables)) or any(_holds_key(Path(file), known.host) for file in files)


def _holds_key(netrc: Path, host: str) -> bool:
    try:
        text = netrc.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return "password" in text and host in text


def open_trackers(
    folder: Path, options: MetricsOptions, config: Mapping[str, Any], resumed_step: int
) -> tuple[Tracker, ...]:
    """The trackers that the options ask for; a run that goes on writes on where it was.

    One that does not open is left out with a warning, a service that is not reached is written offline. config: the
    resolved run. The libraries are there: `check_trackers` has looked.
    """
    offline = replace(options, offline=True)
    ways = {name: (options, offline) if has_key(name) else (offline,) for name in SERVICES}  # without one it would ask
    makers: list[tuple[Callable[[MetricsOptions], Tracker], Sequence[MetricsOptions]]] = [
        *([(lambda _: TensorBoard(folder, resumed_step), (options,))] if options.tensorboard else []),
        *([(lambda how: WeightsAndBiases(folder, how, config), ways["wandb"])] if options.wandb else []),
        *([(lambda how: SwanLab(folder, how, config), ways["swanlab"])] if options.swanlab else []),
    ]
    opened = []
    for make, hows in makers:
        for how in hows:
            try:
                opened.append(make(how))
                break
            except Exception as error:  # of the library, its network or its key: a dashboard may not end a run
                log.warning(f"no dashboard {'offline' if how.offline else 'yet'}: {' '.join(str(error).split())[:300]}")
    return tuple(opened)


def identity(folder: Path) -> str:
    """The same for each start of a run, so that a service takes them for one: 16 letters and digits."""
    return hashlib.sha256(str(folder.resolve()).encode("utf-8")).hexdigest()[:16]


class TensorBoard:
    """Event files in the run's folder; those of steps that a resumed run does again are purged."""

    def __init__(self, folder: Path, resumed_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._former_hook, threading.excepthook = threading.excepthook, self._on_thread_error
        self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=resumed_step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_text(self, name: str, text: str, step: int) -> None:
        """A text under a name, as `sample/0`."""
        self._writer.add_text(name, text, step)

    def close(self) -> None:
        self._writer.close()

    def _on_thread_error(self, error: threading.ExceptHookArgs) -> None:
        """Print no traceback of a writer's thread: `log` and `close` raise what has ended it."""
        if not type(error.thread).__module__.startswith("tensorboard."):
            self._former_hook(error)


class WeightsAndBiases:
    """https://wandb.ai. Offline it writes to the run's folder/wandb, which `wandb sync` sends later."""

    def __init__(self, folder: Path, options: MetricsOptions, config: Mapping[str, Any]) -> None:
        import wandb

        settings = wandb.Settings(silent=True, console="off")
        self._run = wandb.init(dir=str(folder), settings=settings, **_run_of(folder, options, config))
        # W&B's own step only grows, and it ignores what comes with an earlier one; a metric of ours may go back.
        self._run.define_metric("*", step_metric=STEP_METRIC)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({STEP_METRIC: step, **values})

    def close(self) -> None:
        self._run.finish()


class SwanLab:
    """https://swanlab.cn. Offline it writes to the run's folder/swanlab, which `swanlab sync` sends later."""

    def __init__(self, folder: Path, options: MetricsOptions, config: Mapping[str, Any]) -> None:
        import swanlab

        with _own_hooks():
            self._run = swanlab.init(log_dir=str(folder / "swanlab"), **_run_of(folder, options, config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        import swanlab

        with _own_hooks():
            swanlab.finish()


def _run_of(folder: Path, options: MetricsOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    """What both services call alike: which run it is, the same for each of its starts, and whether to use a network."""
    names = {"project": options.project, "name": folder.name, "id": identity(folder), "resume": "allow"}
    return {**names, "config": dict(config), "mode": "offline" if options.offline else "online"}


@contextlib.contextmanager
def _own_hooks() -> Iterator[None]:
    """Leave Ctrl-C and the hook for uncaught errors as they were.

    SwanLab 0.10 takes both when a run begins, and at its end puts back those that it found. Its own end the run at
    Ctrl-C, so that the step which the run still does before it saves could not be logged any more.
    """
    interrupted, uncaught = signal.getsignal(signal.SIGINT), sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = uncaught
        # Python lets no other thread set a handler (Ray's workers train in one), so there SwanLab sets none. None is a
        # handler from outside Python, which cannot be put back.
        if threading.current_thread() is threading.main_thread() and interrupted is not None:
            signal.signal(signal.SIGINT, interrupted)
