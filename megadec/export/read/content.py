"""What a folder of weights holds, as one hash, wherever it lies."""

import hashlib
from pathlib import Path

from megadec.common.files import sha256_of
from megadec.engine.checkpoint.manifest import MANIFEST

# Of each file of a folder that has no manifest so much is read at its beginning and at its end.
READ_BYTES = 1 << 20
WEIGHTS = "*.safetensors"


def content_of(folder: Path) -> str:
    """SHA-256 of a folder's manifest, which has the hash of every file; where there is none (a Hugging Face folder), of
    the size, the begin and the end of each file of weights: no model of billions is read whole to tell two apart."""
    if (folder / MANIFEST).is_file():
        return sha256_of(folder / MANIFEST)
    digest = hashlib.sha256()
    for file in sorted(folder.glob(WEIGHTS)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(READ_BYTES))
            stream.seek(max(READ_BYTES, size - READ_BYTES))
            digest.update(stream.read())
    return digest.hexdigest()
