"""Checkpoints: what has its name is whole.

In comes an engine at a step, out goes `step_00000100/` with DeepSpeed's files, the resolved run, the tokenizer, each
rank's random state, and a manifest with the hash of every file; it is written under a hidden name and renamed last.
Trade-off: every file is read once more to be hashed, and training waits for it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import megadec
from megadec.common.config import to_dict, to_yaml
from megadec.common.errors import CheckpointError, ConfigError
from megadec.common.files import read_json, sha256_of, storage_errors, sync_folder, sync_tree, write_json
from megadec.common.log import logger
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.common.tokenizer import Tokenizer
from megadec.engine.early_stopping import Best
from megadec.engine.guard import GuardState
from megadec.engine.settings import DeepSpeedSettings
from megadec.engine.task import Task
from megadec.engine.zero import ZeroEngine, stream_errors

FORMAT, VERSION = "megadec-checkpoint", 1
FOLDER = "checkpoints"
MANIFEST = "manifest.json"
RUN_FILE = "run.yaml"
_NAME = re.compile(r"step_(\d{8,})")

log = logger(__name__)


@dataclass(frozen=True)
class CheckpointOptions:
    """`every_steps`: save so often (0: at the end only). `keep_last`: so many stay, older ones go.

    `resume`: `auto` goes on from the newest whole checkpoint of the run, or begins; `none` refuses a folder that holds
    a run; anything else is the path of the checkpoint to go on from.
    """

    every_steps: int = 1000
    keep_last: int = 3
    resume: str = "auto"

    def __post_init__(self) -> None:
        if self.every_steps < 0:
            raise ConfigError(f"checkpoint.every_steps={self.every_steps} is negative; 0 saves at the end only")
        if self.keep_last < 1:
            raise ConfigError(f"checkpoint.keep_last={self.keep_last} is not at least 1")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    `tokens`: valid targets seen; `evaluated_step`: of the last finished evaluation, -1 for none; `best`: of those;
    `guard`: what the guard remembers of losses, norms and steps left out.
    """

    step: int = 0
    tokens: int = 0
    loss: float | None = None
    evaluated_step: int = -1
    best: Best = field(default_factory=Best)
    guard: GuardState = field(default_factory=GuardState)


@dataclass(frozen=True)
class Contents:
    """What a checkpoint says beside weights:

    The resolved run, its task, tokenizer and DeepSpeed settings.
    """

    run: Any
    task: Task
    tokenizer: Tokenizer
    settings: DeepSpeedSettings
    ranks: int


def save_checkpoint(
    engine: ZeroEngine, folder: Path, contents: Contents, progress: Progress, data_state: dict[str, Any], keep_last: int
) -> Path:
    """Write `folder`/step_N and give it its name when it is whole; then remove all but the newest `keep_last`.

    The best checkpoint so far stays too.
    Collective. Raises StorageError (disk full, no permission) with nothing under the final name.
    """
    final = folder / checkpoint_name(progress.step)
    partial = folder / f".{final.name}.partial"
    try:
        if engine.ranks.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            with storage_errors(partial):
                partial.mkdir(parents=True)
        engine.ranks.barrier()
        engine.save(partial)
        with storage_errors(partial), stream_errors(partial):
            torch.save(_random_state(), partial / _random_file(engine.ranks.rank))
        engine.ranks.barrier()
        if engine.ranks.rank == 0:
            with storage_errors(partial):
                _finish(partial, final, contents, progress, data_state)
                _remove_old(folder, keep_last, progress.best.step)
        engine.ranks.barrier()
    except BaseException:
        if engine.ranks.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    log.info("saved %s", final)
    return final


def _finish(partial: Path, final: Path, contents: Contents, progress: Progress, data_state: dict[str, Any]) -> None:
    """On rank 0: the small files, the hashes, the manifest, and the name."""
    (partial / RUN_FILE).write_text(to_yaml(contents.run), encoding="utf-8")
    shutil.copyfile(contents.tokenizer.path, partial / TOKENIZER_FILE)
    files = {
        str(path.relative_to(partial)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "step": progress.step,
        "tokens": progress.tokens,
        "loss": progress.loss,
        "evaluated_step": progress.evaluated_step,
        "best": asdict(progress.best),
        "guard": progress.guard.to_json(),
        "world_size": contents.ranks,
        "zero_stage": contents.settings.stage,
        "precision": contents.settings.precision,
        "data": data_state,
        "task": contents.task.manifest,
        "shape": contents.task.shape.to_dict(),
        "run": to_dict(contents.run),
        "tokenizer": {"sha256": contents.tokenizer.sha256, "vocabulary_size": contents.tokenizer.vocabulary_size},
        "tied": [list(names) for names in contents.task.tied],
        "files": files,
        "versions": {"megadec": megadec.__version__, "torch": torch.__version__, "deepspeed": _deepspeed_version()},
    }
    write_json(partial / MANIFEST, manifest)
    sync_tree(partial)
    if final.exists():  # the same step again, from a run that went on from an older checkpoint
        shutil.rmtree(final)
    os.replace(partial, final)
    sync_folder(final.parent)


def checkpoint_name(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step_{step:08d}"


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints under `folder` by name, oldest first; partial ones have no such name."""
    if not folder.is_dir():
        return []
    named = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named)]


def _remove_old(folder: Path, keep_last: int, best_step: int) -> None:
    for path in checkpoints_in(folder)[:-keep_last]:
        if path.name == checkpoint_name(best_step):
            continue
        # Renamed first: a removal that is interrupted must not leave half a checkpoint under its name.
        doomed = path.with_name(f".{path.name}.partial")
        os.replace(path, doomed)
        shutil.rmtree(doomed)


def remove_partial(folder: Path) -> None:
    """Remove what killed runs left unfinished. Call on rank 0 before training."""
    for path in sorted(folder.glob(".step_*.partial")):
        log.warning("removing the unfinished checkpoint %s", path)
        shutil.rmtree(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint at `path`, with every file compared to its size and hash.

    Raises CheckpointError naming the file that is missing, cut or changed.
    """
    manifest = read_json(path / MANIFEST, CheckpointError)
    if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
        raise CheckpointError(f"{path / MANIFEST} is not the manifest of a {FORMAT} of version {VERSION}")
    for name, stated in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing; the manifest names it")
        if file.stat().st_size != stated["bytes"]:
            raise CheckpointError(f"{file} has {file.stat().st_size} bytes; the manifest says {stated['bytes']}")
        if sha256_of(file) != stated["sha256"]:
            raise CheckpointError(f"{file} was changed: its hash is not the one in the manifest")
    return manifest


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


def check_fits(path: Path, manifest: dict[str, Any], contents: Contents) -> None:
    """Raise CheckpointError when the checkpoint cannot be loaded by this run as it was started."""
    settings = contents.settings
    found = {
        "world_size": ("ranks", contents.ranks),
        "zero_stage": (f"ZeRO stage ({settings.file})", settings.stage),
        "precision": ("train.precision", settings.precision),
    }
    for key, (what, wanted) in found.items():
        if manifest[key] != wanted:
            raise CheckpointError(f"{path} was saved with {what} = {manifest[key]}; this run has {wanted}")
    kind, shape = contents.task.kind, contents.task.shape.to_dict()
    saved_kind = manifest.get("task", {}).get("kind", "language_model")
    if (saved_kind, manifest["shape"]) != (kind, shape):
        raise CheckpointError(
            f"{path} holds another model: {saved_kind} {manifest['shape']}; this run has {kind} {shape}"
        )
    if manifest["tokenizer"]["sha256"] != contents.tokenizer.sha256:
        raise CheckpointError(f"{path} was trained with another tokenizer than {contents.tokenizer.path}")


def load_checkpoint(engine: ZeroEngine, path: Path, manifest: dict[str, Any]) -> Progress:
    """Restore weights, optimizer and this rank's random state. Collective. Raises CheckpointError."""
    engine.load(path)
    _restore_random_state(torch.load(path / _random_file(engine.ranks.rank), weights_only=True))
    log.info("going on from %s", path)
    best, guard = Best(**manifest.get("best", {})), GuardState.from_json(manifest.get("guard", {}))
    return Progress(manifest["step"], manifest["tokens"], manifest["loss"], manifest["evaluated_step"], best, guard)


def _random_file(rank: int) -> str:
    return f"rng_rank_{rank:04d}.pt"


def _random_state() -> dict[str, Any]:
    numpy_state: Any = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": [version, list(words), gauss],
        "numpy": [numpy_state[0], torch.from_numpy(numpy_state[1].astype(np.int64)), *numpy_state[2:]],
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))


def _deepspeed_version() -> str:
    from importlib.metadata import version

    return version("deepspeed")
