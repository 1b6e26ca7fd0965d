"""The command train-tokenizer: files of documents in; a folder with tokenizer.model, training.json, report.json and
README.md out, which gets its name when all four are whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import sentencepiece

from megadec import __version__
from megadec.common.config import parse, to_dict
from megadec.common.errors import ConfigError
from megadec.common.files import sha256_of, whole_folder, write_json
from megadec.common.log import logger
from megadec.common.tokenizer import FILE_NAME
from megadec.corpus.document import documents_only
from megadec.corpus.vocabulary.compare import compare
from megadec.corpus.vocabulary.learn import SMALLEST_SIZE, VocabularyOptions, choose_sample, learn_from
from megadec.corpus.vocabulary.report_card import measure, read_groups, write_report

log = logger(__name__)


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions(VocabularyOptions):
    """A vocabulary and where it goes.

    Attributes:
        output: folder for tokenizer.model, training.json, report.json and README.md.
        groups: `NAME=SOURCE+SOURCE`: sources that the report card also counts together.
        report: whether every document is encoded and decoded for the report card.
        compare: sizes, such as 8000 16000 32000 64000, that are also learned from the same text, by byte pairs and as
            unigrams, and stand in the report card with what they give on the held-out documents.
        overwrite: replace the folder if it is there.
    """

    output: Path
    groups: tuple[str, ...] = ()
    report: bool = True
    compare: tuple[int, ...] = ()
    overwrite: bool = False


def train_tokenizer(options: TokenizerOptions) -> None:
    """Learn, record, report. Raises ConfigError for a folder that exists, and what `learn_vocabulary` raises."""
    groups, options = read_groups(options.groups), replace(options, input=documents_only(options.input))
    if options.compare and not (options.report and options.held_out_fraction):
        raise ConfigError("compare goes into the report card and needs report=true and held_out_fraction above 0")
    for size in options.compare:
        if size < SMALLEST_SIZE:
            raise ConfigError(f"compare={size} is not at least {SMALLEST_SIZE}")
    if options.output.exists() and not options.overwrite and any(options.output.iterdir()):
        raise ConfigError(f"{options.output}: exists already; choose another folder or give --overwrite")
    portions = choose_sample(options)
    model, record = learn_from(portions, options)
    with whole_folder(options.output, replace=options.overwrite) as partial:
        (partial / FILE_NAME).write_bytes(model)
        write_json(partial / "training.json", training_record(options, partial / FILE_NAME, record))
        if options.report:
            figures = measure(partial / FILE_NAME, options.input, options.held_out_fraction, options.workers, groups)
            if options.compare:
                figures["comparison"] = compare(portions, options, options.compare, groups)
            write_report(partial, figures, options.output.name)
    log.info("wrote %s", options.output)


def main(argv: Sequence[str]) -> None:
    """Train what the command line asks for."""
    description = "Learn a vocabulary from documents, with a report card."
    train_tokenizer(parse(TokenizerOptions, argv, description=description))


def training_record(options: TokenizerOptions, model: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed to know a model again and to make it again: options, hashes, what went in, how long it took."""
    recorded = {field.name: to_dict(getattr(options, field.name)) for field in fields(VocabularyOptions)}
    return {
        "tokenizer": {"file": FILE_NAME, "sha256": sha256_of(model), "vocabulary_size": options.vocab_size},
        "multiple_of_128": options.vocab_size % 128 == 0,
        "options": recorded | {"input": [path.name for path in options.input]},
        "input_sha256": {path.name: sha256_of(path) for path in options.input},
        "versions": {"megadec": __version__, "sentencepiece": sentencepiece.__version__},
        **record,
    }
