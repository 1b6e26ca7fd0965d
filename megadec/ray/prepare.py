"""Prepares a corpus on a Ray cluster: the same steps, files and bytes as tools/prepare.py, through Ray Data.

A piece of the input is a task. What tasks make lies in the work folder, which every node has to see, so that a lost
node costs the pieces that it was at: Ray gives them to others. This command decides about duplicates and writes the
results.
"""

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Self

from megadec.common.config import parse
from megadec.common.errors import ConfigError, MegadecError
from megadec.corpus.explain import explain
from megadec.corpus.options import PrepareOptions
from megadec.corpus.parallel import WorkerLostError
from megadec.corpus.prepare import prepare, stopped_by_signals
from megadec.corpus.sources.places import Place, place_of
from megadec.ray.connect import connect
from megadec.ray.failures import one_line

LARGEST_SENT_BYTES = 1 << 16
PROBE_SECONDS = 60.0
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}


@dataclass(frozen=True, kw_only=True)
class RayPrepare(PrepareOptions):
    """A run of the corpus pipeline on a cluster. `workers` is how many pieces are done at a time; 0: one for each CPU.

    Attributes:
        address: HOST:PORT of a cluster's head, or auto; left out, the cluster of this job or machine, or one made here.
    """

    address: str | None = None

    @property
    def local(self) -> PrepareOptions:
        """What the same run is without a cluster."""
        return PrepareOptions(**{field.name: getattr(self, field.name) for field in fields(PrepareOptions)})


def main(argv: Sequence[str]) -> None:
    """Prepare a corpus on a Ray cluster; input, results and the project folder lie on a file system that every node
    sees under the same path."""
    options = parse(RayPrepare, argv, description=main.__doc__ or "", program="launch/ray_prepare.py")
    if options.explain:
        for text in explain(options.local):
            print(text, flush=True)
        return
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    connect(options.address, "ray.data")
    try:
        with stopped_by_signals():
            print(prepare(options.local, RayExecutor(options.workers, options.local.files_read)).render())
    finally:
        import ray

        ray.shutdown()


@dataclass(frozen=True)
class RayExecutor:
    """Tasks of Ray Data. workers: how many at a time, 0 for one a CPU. paths: what every node has to see."""

    workers: int
    paths: tuple[Place, ...]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end: tasks end with the generator that `run` gives."""

    def run(self, function: Callable[[Any], Any], items: Iterable[Any], work: Path) -> Iterator[Any]:
        """`function` of each item, as they are done; all items are taken before the first one is begun.

        Raises what a function raises, ConfigError for a node that does not see a path, WorkerLostError for what Ray
        gives up.
        """
        import ray
        from ray.data import DataContext, from_items

        check_nodes(work, self.paths)
        rows = [{"item": _sent(item, number, work)} for number, item in enumerate(items)]
        if not rows:
            return
        DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        call = partial(_call, function, str(Path.cwd()))
        done = from_items(rows, override_num_blocks=len(rows)).map(call, num_cpus=1, concurrency=self.workers or None)
        try:
            for row in done.iter_rows():
                status, value = pickle.loads(row["result"])
                if status == "raised":
                    raise value
                yield value
        except ray.exceptions.RayError as error:
            raise WorkerLostError(f"Ray gave up a piece: {one_line(error)}") from error


def _sent(item: Any, number: int, work: Path) -> bytes:
    """An item as a task gets it: itself, or the file that holds it where it is large (it carries documents)."""
    data = pickle.dumps(item)
    if len(data) <= LARGEST_SENT_BYTES:
        return data
    path = work / f"item-{number:06d}.pickle"
    path.write_bytes(data)
    return pickle.dumps(path.absolute())


def _call(function: Callable[[Any], Any], folder: str, row: dict[str, bytes]) -> dict[str, bytes]:
    """What a task does. An error of ours comes back as a value, for Ray would wrap it and try again."""
    os.chdir(folder)
    item = pickle.loads(row["item"])
    if isinstance(item, Path):
        item = pickle.loads(item.read_bytes())
    try:
        return {"result": pickle.dumps(("done", function(item)))}
    except MegadecError as error:
        return {"result": pickle.dumps(("raised", error))}


def check_nodes(work: Path, paths: Sequence[Place]) -> None:
    """Ask every node that may get tasks whether it sees the project, the work and the input. Raises ConfigError."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    look = ray.remote(_unseen)
    local = [str(path.absolute()) for path in map(place_of, paths) if isinstance(path, Path)]
    wanted = [str(Path.cwd()), str(work.absolute()), *local]
    asked = {
        look.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            wanted
        ): node["NodeManagerHostname"]
        for node in nodes
    }
    if not nodes:
        raise ConfigError("the Ray cluster has no node with a CPU")
    for answer, name in asked.items():
        try:
            missing = ray.get(answer, timeout=PROBE_SECONDS)
        except ray.exceptions.RayError as error:
            raise WorkerLostError(f"node {name} does not answer: {one_line(error)}") from error
        if missing:
            raise ConfigError(
                f"node {name} does not see {missing[0]}: input, results and the project folder must lie on a file"
                " system that every node sees under the same path"
            )


def _unseen(paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(path)]
