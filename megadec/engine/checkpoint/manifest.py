"""The checkpoints in a run's folder: what has its name is whole.

`step_00000100/` holds weights and moments, the resolved run, the tokenizer, each rank's random state, and a manifest
with the hash of every file and a sum over the bits of every tensor. It is written under a hidden name and renamed last.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from megadec.common.errors import CheckpointError, MegadecError
from megadec.common.files import read_json, sha256_of, stays_inside, sync_path, sync_tree, write_json
from megadec.common.log import logger
from megadec.common.schema import check_schema, shown
from megadec.engine.checkpoint.skipped import RunStart, from_json, starts_of
from megadec.engine.early_stopping import Best
from megadec.engine.health.guard import GuardState
from megadec.engine.runs.common import CheckpointOptions

FORMAT = "megadec-checkpoint"
VERSION = 2
MANIFEST = "manifest.json"
RUN_FILE = "run.yaml"
# What a manifest says of its files: name -> size and hash.
FILES: dict[Any, Any] = {str: {"bytes": int, "sha256": str}}
_NAME = re.compile(r"step_(\d{8,})")

log = logger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    `tokens`: valid targets seen; `evaluated_step`: of the last finished evaluation, -1 for none; `best`: of those;
    `guard`: what the guard remembers of losses, norms and skipped steps; `starts`: from which step on the run went
    without which documents and shards; `origins`: the weights that the run began from (`origins.py`).
    """

    step: int = 0
    tokens: int = 0
    loss: float | None = None
    evaluated_step: int = -1
    best: Best = field(default_factory=Best)
    guard: GuardState = field(default_factory=GuardState)
    starts: tuple[RunStart, ...] = ()
    origins: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """What a checkpoint keeps of it, but for the origins, which one of an earlier version does not state."""
        counts = {name: manifest[name] for name in ("step", "tokens", "loss", "evaluated_step")}
        guard = from_json(GuardState, manifest["guard"])
        return cls(**counts, best=Best(**manifest["best"]), guard=guard, starts=starts_of(manifest))


def checkpoint_name(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step_{step:08d}"


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints under `folder` by name, oldest first; partial ones have no such name."""
    if not folder.is_dir():
        return []
    named = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named)]


def replaced_name(final: Path) -> Path:
    """Where a checkpoint goes while another of the same step takes its name."""
    return final.with_name(f".{final.name}.replaced")


def finalize(partial: Path, final: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a checkpoint that is whole but for it, flush all to disk, and rename it; one of the same
    step goes when that has happened.
    """
    write_json(partial / MANIFEST, {"format": FORMAT, "version": VERSION, **manifest})
    sync_tree(partial)
    replaced = replaced_name(final)
    if final.exists():  # the same step again: after an evaluation, or from a run that went on from before it
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(final, replaced)
    os.replace(partial, final)
    sync_path(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_old(folder: Path, options: CheckpointOptions, best_step: int) -> None:
    """Remove what neither is among the newest, nor the best, nor one of those that stay for ever."""
    for path in checkpoints_in(folder)[: -options.keep_last]:
        step = int(path.name.removeprefix("step_"))
        if step == best_step or (options.keep_every and step % options.keep_every == 0):
            continue
        # Renamed first: a removal that is interrupted must not leave half a checkpoint under its name.
        removed = path.with_name(f".{path.name}.old.partial")
        os.replace(path, removed)
        shutil.rmtree(removed)


def remove_partial(folder: Path) -> None:
    """Remove what killed runs left unfinished, and give back the name of one that was killed while it was replaced.

    Call on rank 0 before training.
    """
    for path in sorted(folder.glob(".step_*.replaced")):
        final = path.with_name(path.name.removeprefix(".").removesuffix(".replaced"))
        if final.exists():
            shutil.rmtree(path)
        else:
            os.replace(path, final)
    for path in sorted(folder.glob(".step_*.partial")):
        log.warning("removing the unfinished checkpoint %s", path)
        shutil.rmtree(path)


def read_manifest(
    path: Path, kind: str = FORMAT, version: int = VERSION, error: type[MegadecError] = CheckpointError
) -> dict[str, Any]:
    """The manifest of the checkpoint (or other `kind` of folder) at `path`, with every file's size and hash compared.

    Raises `error` naming the file that is missing, cut or changed.
    """
    manifest = read_json(path / MANIFEST, error)
    if not isinstance(manifest, dict) or manifest.get("format") != kind or manifest.get("version") != version:
        raise error(f"{path / MANIFEST} is not the manifest of a {kind} of version {version}")
    check_schema(manifest, {"files": FILES}, str(path / MANIFEST), error)
    check_files(path, manifest.get("files") or {}, error)
    return manifest


def file_hashes(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What `check_files` wants to know of each file, by its name."""
    return {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(files)}


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], error: type[MegadecError]) -> None:
    """Compare the size and the hash of each file with those stated. Raises `error` naming the first that differs."""
    for name, stated in files.items():
        if not stays_inside(name) or not {"bytes", "sha256"} <= stated.keys():
            raise error(f"{folder}: {shown(name)} with {shown(dict(stated))} is not a file of it with bytes and sha256")
        file = folder / name
        if not file.is_file():
            raise error(f"{file} is missing; the manifest names it")
        if file.stat().st_size != stated["bytes"]:
            raise error(f"{file} has {file.stat().st_size} bytes; the manifest says {stated['bytes']}")
    with ThreadPoolExecutor() as pool:  # a rank's file each
        hashes = pool.map(sha256_of, (folder / name for name in files))
        for (name, stated), found in zip(files.items(), hashes, strict=True):
            if found != stated["sha256"]:
                raise error(f"{folder / name} was changed: its hash is not the one in the manifest")


def newest_whole(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint whose files are all as its manifest says, with that; None when there is none at all.

    Raises CheckpointError when there are checkpoints and every one is damaged: a run never silently begins anew.
    """
    damaged = None
    for path in reversed(checkpoints_in(folder)):
        try:
            return path, read_manifest(path)
        except CheckpointError as error:
            log.warning("%s; trying the checkpoint before it", error)
            damaged = damaged or error
    if damaged is not None:
        raise CheckpointError(f"no checkpoint under {folder} is whole; the newest: {damaged}")
    return None
