"""A file system that fails as networks do, for tests of remote shards: fsspec's own memory with faults on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FaultyFileSystem(MemoryFileSystem):
    """memory:// under the name faulty://; `faults` are taken one by one by reads of tars, `reads` lists those reads."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[list[str]] = []
    reads: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("faulty://", "memory://"))

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if path.endswith(".tar") and mode == "rb":
            self.reads.append(path.rsplit("/", 1)[1])
            fault = self.faults.pop(0) if self.faults else ""
            if fault == "refused":
                raise ConnectionResetError("connection reset by peer")
            if fault:
                return _Damaged(super().open(path, mode, **options), fault)
        return super().open(path, mode, **options)


class _Damaged:
    """A download that ends early, or comes with a flipped byte."""

    def __init__(self, file: Any, fault: str) -> None:
        raw = bytearray(file.read())
        if fault == "cut":
            raw = raw[: len(raw) // 2]
        elif fault == "flipped":
            raw[len(raw) // 2] ^= 1
        self._raw = raw
        self._fault = fault

    def __enter__(self) -> _Damaged:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def read(self, size: int) -> bytes:
        if self._fault == "broken" and self._raw:
            self._fault = "reset"
            return bytes(self._raw[:100])
        if self._fault == "reset":
            raise TimeoutError("read timed out")
        taken, self._raw = self._raw[:size], self._raw[size:]
        return bytes(taken)


def upload(folder: Path, address: str) -> FaultyFileSystem:
    """Put a data set there, with no faults to come."""
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    FaultyFileSystem.faults.clear()
    FaultyFileSystem.reads.clear()
    FaultyFileSystem.store.clear()
    files, root = fsspec.core.url_to_fs(address)
    for path in sorted(folder.iterdir()):
        files.pipe_file(f"{root}/{path.name}", path.read_bytes())
    return files
