"""Statistics of the words of documents: frequent words and n-grams, coverage by source, keywords.

    python tools/words.py --input documents/*.parquet --output words/all [--by label] [--ngrams 3]
        [--tokenizer tokenizer/zh_32k/tokenizer.model] [--vocabulary words.txt] [--user_dict names.txt]
        [--stop_words stop.txt] [--workers 8]

In: files of documents, as tools/prepare.py writes them. Out: a folder with report.json, README.md, words.tsv and
ngrams.tsv (a word, its count, and its count in each source, the most frequent first); README.md on standard output.
"""

from megadec.common.errors import run_main
from megadec.corpus.words.statistics import main

if __name__ == "__main__":
    run_main(main)
