"""The megadec model folder: one safetensors file, the shape, the tokenizer, and a manifest of their hashes.

Training can start from it and generation can load it. One file whatever its size (the format has no limit), so that a
reader needs no index.
"""

from pathlib import Path

import torch

from megadec.common.errors import ConfigError, ExportError
from megadec.common.files import whole_folder, write_json
from megadec.common.log import logger
from megadec.common.schema import check_schema, read_object, without_null
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.shape import DecoderShape
from megadec.engine.checkpoint.manifest import MANIFEST, file_hashes, read_manifest
from megadec.export.read.safetensor_files import SINGLE_FILE, SafetensorFiles, write_tensors
from megadec.export.read.source import (
    LANGUAGE_MODEL,
    STATEMENT,
    ModelSource,
    check_tokenizer,
    checked,
    origin_of,
    statement,
    write_carried,
)

FORMAT = "megadec-model"
SHAPE_FILE = "shape.json"

log = logger(__name__)


def to_megadec(source: ModelSource, output: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write the folder `output`, which appears when every tensor read back is bit-equal to its source.

    dtype: torch.float32 or torch.bfloat16; None keeps what the source's files hold (float32 for checkpoints).
    Raises ExportError, ConfigError when `output` exists, StorageError.
    """
    tokenizer = Tokenizer.load(source.tokenizer_path)
    stored = dtype or (source.dtype if source.kind != "checkpoint" else torch.float32)
    with whole_folder(output) as folder:
        log.info("writing megadec folder, %s, to %s", stored, output)
        write_tensors(folder / SINGLE_FILE, source.sizes, stored, source.tensor)
        write_json(folder / SHAPE_FILE, source.shape.to_dict())
        files = [folder / name for name in (SINGLE_FILE, SHAPE_FILE, *write_carried(tokenizer, folder))]
        write_json(folder / MANIFEST, {**statement(source, tokenizer, FORMAT), "files": file_hashes(files)})
        written = read_folder(folder)
        for name in source.names():
            if not torch.equal(written.tensor(name), source.tensor(name).to(stored)):
                raise ExportError(f"tensor {name!r} as written is not what {source.path} holds")
    log.info("%s: every tensor equals its source to the last bit", output)


def read_folder(folder: Path) -> ModelSource:
    """Open a megadec model folder and check its hashes and tensors. Raises ExportError."""
    manifest = without_null(read_manifest(folder, FORMAT, 1, ExportError))
    check_schema(manifest, STATEMENT, str(folder / MANIFEST), ExportError)
    files = SafetensorFiles([folder / SINGLE_FILE])
    tokenizer_file = check_tokenizer(folder, manifest["tokenizer"]["sha256"])
    source = ModelSource(
        path=folder,
        kind="megadec",
        shape=read_shape(folder),
        tokenizer_path=tokenizer_file,
        dtype=files.dtype,
        reader=files,
        task=manifest.get("task", {"kind": LANGUAGE_MODEL}),
        **origin_of(manifest),
    )
    return checked(source)


def read_shape(folder: Path) -> DecoderShape:
    """The shape that a megadec or an ONNX folder states. Raises ExportError."""
    try:
        return DecoderShape.from_mapping(read_object(folder / SHAPE_FILE, {}, ExportError))
    except ConfigError as error:
        raise ExportError(f"{folder / SHAPE_FILE}: {error}") from error
