"""The report card of a tokenizer on files of documents.

    python tokenizer/report.py --model tokenizer/zh_32k --input documents/*.parquet --output tokenizer/zh_32k

In: a tokenizer.model (or its folder) and documents. Out: report.json and README.md in `output`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megadec.common.config import parse
from megadec.common.errors import run_main
from megadec.common.files import read_json
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import documents_only
from megadec.corpus.vocabulary.report_card import measure, read_groups, write_report


@dataclass(frozen=True)
class ReportOptions:
    """What is measured.

    Attributes:
        model: tokenizer.model or the folder that holds it.
        input: files of documents.
        output: folder for report.json and README.md; a comparison of sizes that stands there for this model stays.
        held_out_fraction: the share that the vocabulary was not learned from, as it was given to train.py.
        groups: `NAME=SOURCE+SOURCE`: sources that are also counted together.
        workers: processes.
    """

    model: Path
    input: tuple[Path, ...]
    output: Path
    held_out_fraction: float = 0.1
    groups: tuple[str, ...] = ()
    workers: int = 2


def main(argv: Sequence[str]) -> None:
    """Measure and write."""
    options = parse(ReportOptions, argv, description=__doc__ or "", program="report.py")
    model = Tokenizer.load(options.model).path
    figures = measure(
        model, documents_only(options.input), options.held_out_fraction, options.workers, read_groups(options.groups)
    )
    known = options.output / "report.json"
    if known.is_file() and (before := read_json(known)).get("tokenizer") == figures["tokenizer"]:
        figures |= {key: before[key] for key in ("comparison",) if key in before}
    write_report(options.output, figures, model.resolve().parent.name)


if __name__ == "__main__":
    run_main(main)
