"""Learn a vocabulary from documents, and write it with its record and report card.

    python tokenizer/train.py --input documents/*.parquet --vocab-size 32000 --output tokenizer/zh_32k \
        [--sample wiki=3 'modern>zh-TW=1@1M' ...] [--config tokenizer/zh_32k.yaml]

In: files of documents. Out: a folder with tokenizer.model, training.json, report.json and README.md, which gets its
name when all four are whole.
"""

from megadec.common.errors import run_main
from megadec.corpus.vocabulary.train import main

if __name__ == "__main__":
    run_main(main)
