"""A dump's articles as plain text in JSON lines, by one process: what `bench.corpus` times, started by itself.

    python -m bench.corpus_extraction DUMP.xml OUTPUT.jsonl

It is the same work as WikiExtractor's `--json`: read, clean, write, nothing judged.
"""

import json
import sys
from pathlib import Path

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.wiki.page import clean_wikitext
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.reading import ReadOptions
from megadec.corpus.sources.zhwiki import read_zhwiki


def extract(dump: Path, output: Path) -> None:
    """Write the articles of `dump` to `output`, a JSON object a line."""
    with output.open("w", encoding="utf-8") as file:
        for page in read_zhwiki(dump, CorpusReport(), ReadOptions()):
            document = clean_wikitext(page, CleanContext())
            if not isinstance(document, str):
                fields = {"id": document.id, "url": document.url, "title": document.title, "text": document.text}
                file.write(json.dumps(fields, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    extract(Path(sys.argv[1]), Path(sys.argv[2]))
