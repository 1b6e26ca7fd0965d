"""Look into a data set: `python tools/show.py --data shards/zhwiki [--window 7 --row_tokens 1024] [--verify true]`.

In: a folder of shards. Out: on standard output what its index says, and which documents some windows hold. Not named
inspect.py: a script's folder comes first in Python's search path, so that name would hide the standard library's module
from every script in this folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from megadec.common.config import parse
from megadec.common.errors import ConfigError, run_main
from megadec.common.tokenizer import Tokenizer
from megadec.data.describe import describe_set, describe_window
from megadec.data.index import DataSet
from megadec.data.windows import Packing, plan_windows


@dataclasses.dataclass(frozen=True)
class Options:
    """data: a folder of shards. window: show the documents of these windows instead of the index.

    row_tokens, packing: what a window is. tokenizer: shows how the text of each piece begins. verify: read all shards
    and compare their hashes with the index.
    """

    data: Path
    window: tuple[int, ...] = ()
    row_tokens: int = 1024
    packing: Packing = "cut"
    tokenizer: Path | None = None
    verify: bool = False


def main(argv: Sequence[str]) -> None:
    """Parse, open, print."""
    options = parse(Options, argv, description="Show what a data set holds.")
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else None
    data = DataSet.open(options.data, tokenizer.sha256 if tokenizer else None)
    if options.verify:
        data.verify()
        print(f"{data.folder}: every shard is as its index says")
    if not options.window:
        print(describe_set(data))
        return
    plan = plan_windows(data, options.row_tokens, options.packing)
    for window in options.window:
        if not 0 <= window < plan.windows:
            raise ConfigError(f"--window {window}: {data.folder} has the windows 0 to {plan.windows - 1}")
        print(describe_window(plan, window, tokenizer))


if __name__ == "__main__":
    run_main(main)
