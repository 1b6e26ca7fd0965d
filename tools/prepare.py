"""Raw text to documents and token shards.

    python tools/prepare.py --source zhwiki --input DUMP.xml.bz2 --documents documents
    python tools/prepare.py --source parquet --input documents/*.parquet --tokenizer tokenizer/zh_32k/tokenizer.model \
        --output shards/train --held-out-fraction 0.005 --held-out shards/held-out
"""

from __future__ import annotations

from collections.abc import Sequence

from megadec.common.config import parse
from megadec.common.errors import run_main
from megadec.corpus.prepare import PrepareOptions, prepare


def main(argv: Sequence[str]) -> None:
    """Prepare what the command line asks for and print the report."""
    options = parse(PrepareOptions, argv, description="Raw text to documents and token shards.", program="prepare.py")
    print(prepare(options).render())


if __name__ == "__main__":
    run_main(main)
