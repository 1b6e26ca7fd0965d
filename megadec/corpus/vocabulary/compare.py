"""Vocabularies of several sizes and both kinds, learned from one sample and judged on the same held-out text.

A vocabulary of 8,000 pieces has no room for the characters of both scripts at the coverage of a large one; its coverage
is then lowered, and stands beside it.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from megadec.common.errors import ConfigError
from megadec.common.log import logger, progress
from megadec.common.tokenizer import FILE_NAME, Tokenizer
from megadec.corpus.dedup.exact import digest_of, is_held_out
from megadec.corpus.document import Document, full_text, read_documents
from megadec.corpus.parallel import chunks_of, map_in_order
from megadec.corpus.vocabulary.learn import ModelKind, VocabularyOptions, choose_characters, learn_from, room_of
from megadec.corpus.vocabulary.report_card import Tallies, rows_of, tally_of
from megadec.corpus.vocabulary.sample import Portion

log = logger(__name__)

KINDS: tuple[ModelKind, ...] = ("bpe", "unigram")
# Single characters may take this share of a vocabulary; the others are words.
LARGEST_CHARACTER_FRACTION = 0.6


def compare(
    portions: Sequence[Portion], options: VocabularyOptions, sizes: Sequence[int], groups: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """For each size and kind: characters per token of each kind of held-out text, or why there is no such vocabulary.

    Raises InputError for files, ConfigError for an unknown source in a group.
    """
    entries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        models: list[Path] = []
        for size, kind in product(sizes, KINDS):
            wanted = fitting(portions, replace(options, vocab_size=size, model=kind))
            entry: dict[str, Any] = {"vocabulary_size": size, "model": kind}
            entries.append(entry)
            try:
                model, record = learn_from(portions, wanted)
            except ConfigError as error:
                log.warning("%s %s: %s", kind, size, error)
                entry["impossible"] = str(error)
                continue
            entry["character_coverage"] = wanted.character_coverage
            entry |= {key: record[key] for key in ("single_characters", "training_seconds")}
            models.append(Path(folder) / f"{kind}_{size}" / FILE_NAME)
            models[-1].parent.mkdir()
            models[-1].write_bytes(model)
        possible = [entry for entry in entries if "impossible" not in entry]
        for entry, tallies in zip(possible, _measure(list(map(Tokenizer.load, models)), options), strict=True):
            entry["kinds"] = {name: row["held_out"] for name, row in rows_of(tallies, groups).items()}
    return entries


def fitting(portions: Sequence[Portion], options: VocabularyOptions) -> VocabularyOptions:
    """The options, their coverage lowered until characters leave most of the vocabulary to words."""
    while len(choose_characters(portions, options.character_coverage)) > LARGEST_CHARACTER_FRACTION * room_of(options):
        options = replace(options, character_coverage=1 - 2 * (1 - options.character_coverage))
        if options.character_coverage < 0.5:
            break
    return options


def _measure(tokenizers: Sequence[Tokenizer], options: VocabularyOptions) -> list[Tallies]:
    """The counts of each tokenizer on the held-out documents, which are read once."""
    found: list[Tallies] = [defaultdict(Counter) for _ in tokenizers]
    chunks = chunks_of(progress(read_documents(options.input), description="compare", unit="doc"))
    work = partial(_measure_chunk, tokenizers, options.held_out_fraction)
    for measured in map_in_order(work, chunks, options.workers):
        for tallies, of_chunk in zip(found, measured, strict=True):
            for kind, tally in of_chunk.items():
                tallies[kind].update(tally)
    return found


def _measure_chunk(
    tokenizers: Sequence[Tokenizer], held_out_fraction: float, documents: list[Document]
) -> list[Tallies]:
    """Runs in any process."""
    texts = [(document, full_text(document)) for document in documents]
    held = [(document, text) for document, text in texts if is_held_out(digest_of(text), held_out_fraction)]
    found: list[Tallies] = []
    for tokenizer in tokenizers:
        # A source of which nothing is held out has a row too: a group may name it.
        tallies: Tallies = defaultdict(Counter, {(one.source, one.variant, True): Counter() for one in documents})
        encoded = tokenizer.encode_many([text for _, text in held])
        for (document, text), ids in zip(held, encoded, strict=True):
            tallies[document.source, document.variant, True].update(tally_of(tokenizer, text, ids))
        found.append(tallies)
    return found
