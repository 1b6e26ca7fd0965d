"""The command lineage: a step, or ids of documents in; which weights saw which documents out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megadec.common.config import parse
from megadec.common.errors import ConfigError
from megadec.lineage.graph import find_models
from megadec.lineage.trained import Trained
from megadec.lineage.withdrawal import withdrawal, words


@dataclass(frozen=True)
class LineageOptions:
    """run: folders of runs with checkpoints. step: show its documents. document: ids to find.

    search: folders with exports and other runs, looked through with all below them. until_step: look at the steps up to
    this one, in place of the newest checkpoint's. cache_folder: where remote shards are kept, in place of the run's own
    `data.cache.folder`, which may be a disk of another machine.
    """

    run: tuple[Path, ...]
    step: int | None = None
    document: tuple[str, ...] = ()
    search: tuple[Path, ...] = ()
    until_step: int | None = None
    cache_folder: Path | None = None
    json: bool = False

    def __post_init__(self) -> None:
        if (self.step is None) == (not self.document):
            raise ConfigError("give either --step N or --document ID ...: one of them is what is looked for")
        given = {"search": self.search != (), "until_step": self.until_step is not None}
        if self.step is not None and any(given.values()):
            keys = ", ".join(f"--{name}" for name, stated in given.items() if stated)
            raise ConfigError(f"{keys} with --step {self.step}: they are for --document; leave them out")


def main(argv: Sequence[str]) -> None:
    """Print the documents of a step, or every step, checkpoint, export and later run that learned from documents."""
    options = parse(LineageOptions, argv, description="Which weights saw which documents.")
    found: dict[str, Any]
    if options.step is not None:
        runs = {str(run): Trained(run, options.cache_folder).documents_of_step(options.step) for run in options.run}
        found = {"step": options.step, "runs": runs}
    else:
        models = find_models(options.search)
        found = withdrawal(options.run, options.document, models, options.until_step, options.cache_folder)
    print(json.dumps(found, ensure_ascii=False, indent=1) if options.json else words(found))
