"""A file system that fails as networks do, for tests of remote shards: fsspec's own memory with faults on request."""

import io
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
            raw = bytearray(super().open(path, mode, **options).read())
            if fault == "broken":
                return _Broken(raw)
            if fault == "cut":
                raw = raw[: len(raw) // 2]
            elif fault == "flipped":
                raw[len(raw) // 2] ^= 1
            return io.BytesIO(raw)
        return super().open(path, mode, **options)


class _Broken(io.BytesIO):
    """A download that nothing more comes of after its first bytes."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise TimeoutError("read timed out")
        return super().read(100)


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
