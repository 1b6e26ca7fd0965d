"""Train word vectors on documents with gensim's Word2Vec.

    python tools/word_vectors.py --input documents/*.parquet --output vectors/news [--size 100] [--epochs 5]

In: files of documents, as tools/prepare.py writes them. Out: a folder with vectors.txt (or vectors.bin) in word2vec's
format and report.json with the nearest words of frequent ones; a summary on standard output.
"""

from megadec.common.errors import run_main
from megadec.corpus.words.vectors import main

if __name__ == "__main__":
    run_main(main)
