"""Tokenizing documents: the corpus line, as shards are written, against a plain sentencepiece loop, taking turns.

    python -m bench.corpus_tokenize --input documents/news.parquet --tokenizer tokenizer/zh_32k

The plain loop is what a script does: `for text in texts: processor.encode(text)`, the model's own library in one
process. Ours, in one process too, also checks each text for `<s>` and `</s>`, puts these around it, and makes the array
that is stored.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from bench.measure import alternate, environment, summary
from megadec.common.config import parse
from megadec.common.errors import InputError, TrainingError, check_range, run_main
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document, full_text, read_documents
from megadec.corpus.parallel import chunks_of
from megadec.corpus.tokenize import encode_documents

PLAIN, OURS = "plain_sentencepiece_loop", "ours"


@dataclass(frozen=True)
class TokenizeOptions:
    """What is measured.

    Attributes:
        input: files of documents.
        tokenizer: a tokenizer.model, or its folder.
        documents: how many of them.
        rounds: how often every case has its turn.
        output: file for the result, which is printed too.
    """

    input: tuple[Path, ...]
    tokenizer: Path = Path("tokenizer/zh_32k")
    documents: int = 5_000
    rounds: int = 7
    output: Path | None = None

    def __post_init__(self) -> None:
        check_range(self, "", "documents", "rounds", least=1)


def tokenize_figures(documents: Sequence[Document], tokenizer: Tokenizer, rounds: int) -> dict[str, Any]:
    """Megabytes a second of each case, and how many times the plain loop's speed it has (`speed_ratio`).

    Raises TrainingError unless the cases give the same tokens.
    """
    texts = [full_text(document) for document in documents]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path))
    chunks = list(chunks_of(documents))
    cases = {
        PLAIN: lambda: [processor.encode(text) for text in texts],
        OURS: lambda: list(chain.from_iterable(encode_documents(chunk, tokenizer) for chunk in chunks)),
    }
    theirs, ours = (run() for run in cases.values())
    if not all(np.array_equal(one[1:-1], ids) for one, ids in zip(ours, theirs, strict=True)):
        raise TrainingError("the plain loop and ours give other tokens")
    table = summary(alternate(cases, rounds, warm_up=0), PLAIN)
    size = sum(len(text.encode()) for text in texts)
    for row in table.values():
        row["megabytes_per_second"] = float(f"{size / 1e6 / row['median_seconds']:.4g}")
    return {"documents": len(texts), "bytes": size, "cases": table}


def main(argv: Sequence[str]) -> None:
    """Measure and print."""
    options = parse(TokenizeOptions, argv, description=__doc__ or "", program="bench.corpus_tokenize")
    documents = list(islice(read_documents(options.input), options.documents))
    if not documents:
        raise InputError(f"{options.input[0]}: no documents")
    figures = tokenize_figures(documents, Tokenizer.load(options.tokenizer), options.rounds)
    text = json.dumps({"environment": environment(), **figures}, indent=1)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run_main(main)
