"""Raw text to documents and token shards.

    python tools/prepare.py --source zhwiki --input DUMP.xml.bz2 --documents documents
    python tools/prepare.py --source parquet --input documents/*.parquet --tokenizer tokenizer/zh_32k/tokenizer.model \
        --output shards/train --held-out-fraction 0.005 --held-out shards/held-out
"""

from megadec.common.errors import run_main
from megadec.corpus.prepare import main

if __name__ == "__main__":
    run_main(main)
