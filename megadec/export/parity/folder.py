"""An export's folder: written, compared in the format's own runtime, and only then named."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from megadec.common.files import whole_folder, write_json
from megadec.common.log import logger
from megadec.common.tokenizer import Tokenizer
from megadec.engine.checkpoint.manifest import file_hashes
from megadec.export.parity.compare import Parity
from megadec.export.read.source import PROVENANCE_FILE, ModelSource, check_vocabulary, statement, write_carried

log = logger(__name__)


def write_proven(
    source: ModelSource,
    output: Path,
    what: str,
    write: Callable[[Path, Tokenizer], None],
    check: Callable[[Path], Parity],
) -> Parity:
    """The folder `output`, which appears when `check` has found it equal to its source.

    `write` writes the model beside the tokenizer, which is there already; megadec.json then says where it comes from,
    what it was compared on, the seconds of both, and the size and hash of each file. Raises ExportError, ConfigError
    when `output` exists, StorageError.
    """
    tokenizer = Tokenizer.load(source.tokenizer_path)
    check_vocabulary(source, tokenizer)
    with whole_folder(output) as folder:
        log.info("writing %s to %s", what, output)
        began = time.perf_counter()
        write_carried(tokenizer, folder)
        write(folder, tokenizer)
        written = time.perf_counter()
        log.info("comparing it with its source, in the runtime that it is for (--parity)")
        parity = check(folder)
        seconds = {"writing": round(written - began, 3), "parity": round(time.perf_counter() - written, 3)}
        stated = statement(source, tokenizer, "megadec-export")
        more = {"parity": dataclasses.asdict(parity), "seconds": seconds, "files": file_hashes(folder.iterdir())}
        write_json(folder / PROVENANCE_FILE, {**stated, **more})
    log.info("%s: %s; written in %.1f s, compared in %.1f s", output, parity, *seconds.values())
    return parity
