"""The work folder of a run, `.NAME.work` beside its result: what is done, so that a run that was ended goes on.

It has one owner at a time. Its manifest says which input, options and version it is of; a run with others begins anew.
What has its final name in it is whole. It goes when the run has ended well.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megadec.common.errors import ConfigError
from megadec.common.files import read_json, storage_errors, sync_path, sync_tree, write_json
from megadec.common.log import logger
from megadec.common.owner import OWNER_FILE, WAIT_SECONDS, take_folder
from megadec.corpus.sources.places import Place, versions_of

MANIFEST, COMMITTING = "manifest.json", "committing.json"
FORMAT = "megadec-work/1"

log = logger(__name__)


@dataclass(frozen=True)
class Work:
    """An open work folder. Picklable: workers write into it."""

    folder: Path

    def passed(self, number: int) -> Path:
        """The documents of a piece that passed the steps, with their fingerprints and counts."""
        return self.folder / f"piece-{number:06d}.parquet"

    def dropped(self, number: int) -> Path:
        """The documents of a piece that a step dropped."""
        return self.folder / f"piece-{number:06d}.dropped.parquet"

    def counts(self, number: int) -> Path:
        """What was counted in a piece; written last: a piece with this file is done."""
        return self.folder / f"piece-{number:06d}.json"

    def settled(self, number: int, kind: str = "json") -> Path:
        """What came of a piece when all duplicates were known: counts (json, written last), dropped.parquet, tokens."""
        return self.folder / f"settled-{number:06d}.{kind}"

    @property
    def evaluation(self) -> Path:
        """The index of the evaluation sets, where a run has any."""
        return self.folder / "evaluation"


@contextmanager
def open_work(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[Work, bool]]:
    """The work folder, owned, and whether results were about to get their names when the run was ended.

    It goes with everything in it when the block ends well or raises an error of the request (status 2); it stays for
    the next start when a piece is done and the run is interrupted, loses a worker, or cannot write. Raises ConfigError
    while another run has it.
    """
    stream, owner = take_folder(folder, WAIT_SECONDS)
    if stream is None:
        raise ConfigError(
            f"{folder} belongs to a run that works now ({owner}): wait for its end, or choose another name"
        )
    with stream:
        _begin(folder, {"format": FORMAT, **manifest})
        try:
            yield Work(folder), (folder / COMMITTING).exists()
        except BaseException as error:
            done = len(list(folder.glob("piece-*.json")))
            if not done or getattr(error, "exit_status", None) == ConfigError.exit_status:
                remove(folder)
            else:
                log.info("%s: %d pieces are done; the same command goes on from there", folder, done)
            raise
        remove(folder)


def _begin(folder: Path, manifest: dict[str, Any]) -> None:
    """Go on with what is in the folder, or empty it where that is of another run."""
    path = folder / MANIFEST
    before = read_json(path) if path.exists() else None
    if before == manifest:
        pieces, settled = (len(list(folder.glob(f"{kind}-*.json"))) for kind in ("piece", "settled"))
        log.info("going on with %s: %d pieces were read and cleaned, %d settled", folder, pieces, settled)
        for left in folder.glob(".*.partial-*"):
            left.unlink()
        return
    if before is not None:
        log.info("%s is of another run (%s); this one begins anew", folder, _difference(before, manifest))
    with storage_errors(folder):
        for entry in folder.iterdir():
            if entry.name != OWNER_FILE:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        write_json(path, manifest)


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> str:
    """The first key in which two manifests differ, and both values."""
    for key in sorted({*before, *now}):
        one, other = before.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping) and one != other:
            return _difference(one, other, f"{prefix}{key} ")
        if one != other:
            return f"{prefix}{key}: {one} before, {other} now"
    return "nothing"


def content_of(path: Place) -> str:
    """What tells whether a file or folder has changed: a hash of all names, sizes and times in it."""
    found = hashlib.sha256()
    if isinstance(path, str):
        found.update(json.dumps(list(versions_of(path)), ensure_ascii=False).encode())
        return found.hexdigest()
    for root, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(root, name))
            found.update(f"{root}/{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    if path.is_file():
        status = path.stat()
        found.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return found.hexdigest()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def staged(path: Path) -> Path:
    """The hidden name, beside its own, that a result has until all results are whole; the same at every start."""
    return path.with_name(f".{path.name}.staged")


def commit(work: Work, results: list[Path]) -> None:
    """Give the staged results their names, the last one last. Raises StorageError.

    A run that is ended meanwhile does the rest when it is started again: it finds COMMITTING and those with a name.
    """
    results = [path for path in results if staged(path).exists()]
    for path in results:
        with storage_errors(path):
            sync_tree(staged(path)) if staged(path).is_dir() else sync_path(staged(path))
    write_json(work.folder / COMMITTING, [str(path) for path in results])
    for path in results:
        previous = path.with_name(f".{path.name}.previous")
        with storage_errors(path):
            remove(previous)
            # What stood there before goes only after the new result has the name.
            if path.exists():
                os.replace(path, previous)
            os.replace(staged(path), path)
            sync_path(path.parent)
            remove(previous)


def remove_staged(results: list[Path]) -> None:
    """Remove results that did not get their names."""
    for path in results:
        with suppress(OSError):
            remove(staged(path))
