"""Good and bad examples to a classifier of quality, for `tools/prepare.py --filter.classifier FILE`.

    python tools/train_quality.py --good documents/wiki.parquet documents/news.parquet --bad ads.jsonl \
        --output quality.safetensors

In: files that the readers of prepare know. Out: a safetensors file, and its precision and recall on held-out examples.
"""

from megadec.common.errors import run_main
from megadec.corpus.train_quality import main

if __name__ == "__main__":
    run_main(main)
